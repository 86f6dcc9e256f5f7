// The page: what is drawn or chosen goes to the worker, what comes back is shown.
const Explorer = (() => {
  const MOST = 10; // routing iterations
  const one = (name) => document.getElementById(name);
  const state = { image: null, layers: null, passes: null, pass: 0, digit: 0, chosen: false, label: null, number: 0, milliseconds: 0 };
  let page = null, decoder = null, worker = null, paper = null, knobs = null;
  let working = false, next = null; // the worker has one image at a time, the newest waits for it

  async function start() {
    const packed = Uint8Array.from(atob(one("payload").textContent.trim()), (letter) => letter.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
    const bytes = await new Response(stream).arrayBuffer();
    page = Network.unpack(bytes);
    decoder = new Network.Decoder(page);
    state.pass = page.info.sizes.iterations - 1;
    one("about").textContent = page.info.about;
    one("intro").textContent = introduction();
    one("layers").hidden = page.info.sizes.digits === 1;
    one("passes").value = state.pass + 1;
    paper = Paper.make(one("paper"), page.info.sizes.digits, invitation(), drawn);
    knobs = Knobs.make(one("sliders"), turned);
    worker = new Worker(URL.createObjectURL(new Blob([one("engine").textContent], { type: "text/javascript" })));
    worker.onmessage = ({ data }) => {
      if (data.ready) return ready();
      working = false;
      if (next !== null) send(next);
      answered(data);
    };
    worker.onerror = () => (one("answer").textContent = "This browser does not start the network (no workers here).");
    worker.postMessage({ bytes });
    bars();
    browse();
    one("clear").onclick = () => {
      paper.clear();
      ask();
    };
    one("passes").oninput = () => {
      state.pass = Number(one("passes").value) - 1;
      show();
    };
    one("reset").onclick = () => knobs.reset(meanings());
    one("save").onclick = save;
    const again = () => state.passes && course();
    window.addEventListener("resize", again);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
  }

  function ready() {
    document.body.dataset.ready = "yes";
    choose(0);
  }

  // --- what is read

  function drawn(layers) {
    const { sizes } = page.info, { size, channels } = sizes, near = sizes.digits > 1 ? sizes.shift : null;
    const images = layers.map((layer) => Handwriting.fit(layer, size, near, sizes)).filter((image) => image !== null);
    if (images.length === 0) return ask();
    mark(null);
    const grey = Handwriting.overlay(images, size, sizes.combine);
    read(Float32Array.from({ length: channels * size * size }, (_, n) => grey[n % (size * size)]), null);
  }

  // A drawing is wanted; what is still being read is not.
  function ask() {
    state.number += 1;
    delete document.body.dataset.busy;
    mark(null);
    one("answer").textContent = `${invitation().join(" ")}.`;
  }

  const name = (j) => page.info.classes[j];
  const noun = () => (/^[aeiou]/.test(page.info.noun) ? "an " : "a ") + page.info.noun;
  const invitation = () =>
    page.info.sizes.digits > 1 ? [`Draw two ${page.info.noun}s,`, "one over the other"] : [`Draw ${noun()}`];

  function introduction() {
    const error = page.info.error ? ` This network: ${page.info.error}.` : "";
    return `${invitation().join(" ")}, or choose a test image below. See what the capsules read, how routing gets there and what each of their numbers draws.${error}`;
  }

  function choose(number) {
    mark(number);
    read(image(number), page.info.examples[number].labels);
  }

  // A test example, [c, size, size] in 0..1.
  function image(number) {
    const { size, channels } = page.info.sizes, pixels = channels * size * size;
    return Float32Array.from(page.arrays.examples.subarray(number * pixels, (number + 1) * pixels), (value) => value / 255);
  }

  function read(image, labels) {
    state.image = image;
    state.label = labels;
    state.chosen = false;
    state.number += 1;
    document.body.dataset.busy = "yes";
    send({ image, most: MOST, number: state.number });
    Pictures.paint(one("given"), page.info.sizes.size, [[Pictures.WHITE, image]]);
  }

  function send(message) {
    next = working ? message : null;
    if (next !== null) return;
    working = true;
    worker.postMessage(message);
  }

  function answered(data) {
    if (data.number !== state.number) return; // another image came meanwhile
    state.passes = data.passes;
    state.milliseconds = data.milliseconds;
    show();
    delete document.body.dataset.busy;
  }

  // The digits read, the surest first: one, or of a network of pairs two, the second if it is longer
  // than a half.
  function digitsRead() {
    const lengths = state.passes[state.pass].lengths;
    const order = lengths.map((_, j) => j).sort((a, b) => lengths[b] - lengths[a]);
    return order.slice(0, page.info.sizes.digits).filter((j, n) => n === 0 || lengths[j] > 0.5);
  }

  // --- what is shown

  function show() {
    const { size } = page.info.sizes, now = state.passes[state.pass], read = digitsRead();
    if (!state.chosen) state.digit = read[0];
    const lengths = read.map((j) => `${name(j)} (${now.lengths[j].toFixed(2)})`).join(" and ");
    const true_ = state.label === null ? "" : `; the label says ${state.label.map(name).join(" and ")}`;
    const known = now.lengths[read[0]] > 0.5;
    const answer = known ? `Reads ${lengths}` : `Rejected, perhaps ${lengths}: no capsule is longer than 0.5`;
    one("answer").textContent = `${answer}${true_}. ${Math.round(state.milliseconds)} ms.`;
    one("passes-text").textContent = `${state.pass + 1}${state.pass + 1 === page.info.sizes.iterations ? " (as trained)" : ""}`;
    document.querySelectorAll(".bar").forEach((bar, j) => {
      bar.querySelector("i").style.width = `${100 * Math.min(1, now.lengths[j])}%`;
      bar.querySelector("b").textContent = now.lengths[j].toFixed(3);
      bar.classList.toggle("read", read.includes(j));
      bar.setAttribute("aria-checked", String(j === state.digit));
      bar.setAttribute("aria-label", `${page.info.noun} ${name(j)}, length ${now.lengths[j].toFixed(3)}${read.includes(j) ? ", read" : ""}`);
      bar.tabIndex = j === state.digit ? 0 : -1;
    });
    course();
    const image = decoder.image(capsule(state.digit), state.digit), tints = [Pictures.BLUE, Pictures.ORANGE];
    Pictures.paint(one("drawn"), size, [[Pictures.WHITE, image]]);
    tell("drawn", `the ${name(state.digit)} that its capsule draws`);
    Pictures.paint(one("votes"), size, [[[90, 90, 90], state.image], [tints[1], heat(now.places[state.digit])]]);
    tell("votes", `where the votes for ${name(state.digit)} come from`);
    const parts = read.length > 1 ? read.map((j, n) => [tints[n], decoder.image(capsule(j), j)]) : [];
    one("both").replaceChildren(
      ...(parts.length ? [figure(size, parts, `both ${page.info.noun}s as drawn: ${name(read[0])} blue, ${name(read[1])} orange`)] : []),
    );
    one("knobs-text").textContent =
      `The ${page.info.sizes.upperDim} dimensions of the capsule of ${name(state.digit)}. What a slider changes was measured on test images over the ` +
      `blue band: two standard deviations of them either way of their mean. Beyond it real images are rare.`;
    knobs.show(capsule(state.digit), meanings());
  }

  function tell(name, words) {
    one(name).setAttribute("aria-label", words);
    one(`${name}-text`).textContent = words;
  }

  function figure(size, layers, words) {
    const found = document.createElement("figure"), canvas = document.createElement("canvas"), caption = document.createElement("figcaption");
    canvas.className = "pixels";
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", words);
    caption.textContent = words;
    Pictures.paint(canvas, size, layers);
    found.append(canvas, caption);
    return found;
  }

  const capsule = (digit) => {
    const d = page.info.sizes.upperDim;
    return state.passes[state.pass].capsules.subarray(digit * d, (digit + 1) * d);
  };
  const meanings = () => page.info.meanings[state.digit];

  function course() {
    const digit = name(state.digit), own = state.passes.map((pass) => pass.couplings[state.digit]);
    const lines = state.passes[0].lengths.map((_, j) => ({ name: name(j), values: state.passes.map((pass) => pass.lengths[j]) }));
    Pictures.course(one("course"), [...lines, { name: digit, values: own, dashed: true }], digit, state.pass);
    const now = state.passes[state.pass];
    const words =
      `Lengths over the iterations, ${digit} thick; dashed, the coupling of the votes that make it. ` +
      `After ${state.pass + 1}: length ${now.lengths[state.digit].toFixed(2)}, coupling ${(100 * own[state.pass]).toFixed(0)} %.`;
    one("course-text").textContent = words;
    one("course").setAttribute("aria-label", words);
  }

  // What each place of the grid adds to the capsule, spread over the pixels that it looks at.
  function heat(places) {
    const { size, grid, width, stride } = page.info.sizes, found = new Float32Array(size * size);
    const radius = (width + 1) / 4, first = (width - 1) / 2; // the middle of the first place
    let most = 0;
    for (let y = 0; y < size; y++)
      for (let x = 0; x < size; x++) {
        let sum = 0;
        for (let place = 0; place < places.length; place++) {
          const dy = y - first - stride * Math.floor(place / grid), dx = x - first - stride * (place % grid);
          sum += Math.max(0, places[place]) * Math.exp(-(dy * dy + dx * dx) / (radius * radius));
        }
        found[y * size + x] = sum;
        most = Math.max(most, sum);
      }
    return most > 0 ? found.map((value) => value / most) : found;
  }

  // --- knobs

  function turned(values, dimension) {
    const { size } = page.info.sizes, image = decoder.image(values, state.digit);
    Pictures.paint(one("turned"), size, [[Pictures.WHITE, image]]);
    tell("turned", `${name(state.digit)}, as turned`);
    const steps = knobs ? knobs.strip() : [];
    one("strip").replaceChildren(
      ...steps.map((capsule) => {
        const canvas = document.createElement("canvas");
        Pictures.paint(canvas, size, [[Pictures.WHITE, decoder.image(capsule, state.digit)]]);
        return canvas;
      }),
    );
    const words = `Dimension ${dimension} from -0.25 to +0.25 of what it is, in the paper's eleven steps.`;
    one("strip").setAttribute("aria-label", words);
    one("strip-text").textContent = words;
  }

  function save() {
    const images = [one("turned"), ...document.querySelectorAll("#strip canvas")], { size } = page.info.sizes;
    const canvas = document.createElement("canvas"), context = canvas.getContext("2d"), large = 6 * size, small = 2 * size;
    canvas.width = Math.max(large, 11 * small);
    canvas.height = large + small;
    context.imageSmoothingEnabled = false;
    context.drawImage(images[0], 0, 0, large, large);
    images.slice(1).forEach((image, n) => context.drawImage(image, n * small, large, small, small));
    const link = document.createElement("a");
    link.download = `capsule-${state.digit}.png`;
    link.href = canvas.toDataURL("image/png");
    link.click();
  }

  // --- digits to choose

  function bars() {
    one("bars").replaceChildren(
      ...Array.from({ length: page.info.sizes.classes }, (_, j) => {
        const bar = document.createElement("button");
        bar.type = "button";
        bar.className = "bar";
        bar.setAttribute("role", "radio");
        bar.innerHTML = "<span></span><span><i></i></span><b></b>";
        bar.firstChild.textContent = name(j);
        bar.onclick = () => look(j);
        bar.onkeydown = (event) => {
          const step = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.key];
          if (!step) return;
          event.preventDefault();
          look((j + step + page.info.sizes.classes) % page.info.sizes.classes);
          one("bars").children[state.digit].focus();
        };
        return bar;
      }),
    );
  }

  function look(digit) {
    if (state.passes === null) return;
    Object.assign(state, { digit, chosen: true });
    show();
  }

  function browse() {
    const { size } = page.info.sizes, groups = new Map();
    page.info.examples.forEach((example, number) => {
      if (!groups.has(example.group)) groups.set(example.group, []);
      groups.get(example.group).push(number);
    });
    for (const [group, numbers] of groups) {
      const title = document.createElement("h3"), row = document.createElement("div");
      const section = document.createElement("section");
      title.textContent = group;
      section.classList.toggle("wide", numbers.length > 10);
      for (const number of numbers) {
        const button = document.createElement("button"), canvas = document.createElement("canvas");
        Pictures.paint(canvas, size, [[Pictures.WHITE, image(number)]]);
        button.type = "button";
        button.dataset.number = number;
        button.setAttribute("aria-label", `test example ${page.info.examples[number].labels.map(name).join(" and ")}`);
        button.onclick = () => choose(number);
        button.append(canvas);
        row.append(button);
      }
      section.append(title, row);
      one("examples").append(section);
    }
  }

  function mark(number) {
    document.querySelectorAll("#examples button").forEach((button) => button.setAttribute("aria-pressed", String(button.dataset.number === String(number))));
  }

  start().catch((error) => (one("answer").textContent = `This browser does not show the network: ${error.message}`));
  return { state, choose, decode: (digit) => decoder.image(capsule(digit), digit) };
})();
