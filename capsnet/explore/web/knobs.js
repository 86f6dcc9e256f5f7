// Sixteen sliders: the dimensions of one capsule, counted from 0, each with what it means and where real digits lie.
const Knobs = (() => {
  const STEPS = Array.from({ length: 11 }, (_, n) => (n - 5) / 20); // the paper's: -0.25 to 0.25

  // `changed(values, dimension)` is called at every move.
  function make(host, changed) {
    let values = null, start = null, turned = 0;

    // capsule [d], and of each dimension {name, mean, two_sigma}: two_sigma is two standard deviations.
    function show(capsule, meanings) {
      start = Float32Array.from(capsule);
      values = Float32Array.from(capsule);
      host.replaceChildren(
        ...meanings.map(({ name, mean, two_sigma: twoSigma }, d) => {
          const low = Math.min(mean - 1.5 * twoSigma, start[d] - 0.25), high = Math.max(mean + 1.5 * twoSigma, start[d] + 0.25);
          const label = document.createElement("label"), words = document.createElement("span");
          const info = document.createElement("span"), input = document.createElement("input");
          const real = `real images: ${(mean - twoSigma).toFixed(2)} to ${(mean + twoSigma).toFixed(2)}`;
          label.className = "knob";
          words.textContent = `${d}: ${name === "none" ? "no one thing" : name}`;
          Object.assign(input, { type: "range", min: low, max: high, step: "any", value: start[d] });
          info.className = "info";
          const say = (value) => {
            info.textContent = value.toFixed(2);
            input.setAttribute("aria-valuetext", `${value.toFixed(2)}; ${real}`);
          };
          say(start[d]);
          const band = document.createElement("span"), mark = document.createElement("i");
          band.className = "two-sigma";
          band.title = real;
          mark.style.left = `${(100 * (mean - twoSigma - low)) / (high - low)}%`;
          mark.style.width = `${(100 * 2 * twoSigma) / (high - low)}%`;
          band.append(mark);
          input.addEventListener("input", () => {
            values[d] = Number(input.value);
            say(values[d]);
            turned = d;
            changed(values, turned);
          });
          label.append(words, info, input, band);
          return label;
        }),
      );
      changed(values, turned);
    }

    function reset(meanings) {
      show(start, meanings);
    }

    // The capsules of the strip: the one as it is turned, with the paper's steps added to one number.
    function strip() {
      return STEPS.map((step) => {
        const moved = Float32Array.from(values);
        moved[turned] += step;
        return moved;
      });
    }

    return { show, reset, strip };
  }

  return { make, STEPS };
})();
