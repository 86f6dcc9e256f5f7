// Drawing by pointer or keyboard, on as many layers as the network reads digits.
const Paper = (() => {
  const WIDTH = 280, PEN = 22, STEP = 7; // pixels of the canvas

  // `invitation`: the lines on the empty paper. `changed` is called with the layers [{ink, width}] after each stroke.
  function make(canvas, numLayers, invitation, changed) {
    const layers = Array.from({ length: numLayers }, () => {
      const layer = document.createElement("canvas");
      layer.width = layer.height = WIDTH;
      layer.getContext("2d", { willReadFrequently: true }); // the first asking decides
      return layer;
    });
    const colours = numLayers > 1 ? ["rgb(86,180,233)", "rgb(230,159,0)"] : ["#fff"];
    const pen = { x: WIDTH / 2, y: WIDTH / 2, down: false, keyboard: false };
    let empty = true;
    const chosen = (name) => document.querySelector(`input[name=${name}]:checked`).value;

    function stroke(from, to) {
      empty = false;
      const context = layers[Math.min(numLayers - 1, Number(chosen("layer")))].getContext("2d");
      context.globalCompositeOperation = chosen("tool") === "eraser" ? "destination-out" : "source-over";
      context.strokeStyle = colours[Math.min(numLayers - 1, Number(chosen("layer")))];
      context.lineWidth = chosen("tool") === "eraser" ? 2 * PEN : PEN;
      context.lineCap = context.lineJoin = "round";
      context.beginPath();
      context.moveTo(from.x, from.y);
      context.lineTo(to.x + 0.01, to.y);
      context.stroke();
    }

    function show() {
      const context = canvas.getContext("2d");
      context.globalCompositeOperation = "source-over";
      context.fillStyle = "#000";
      context.fillRect(0, 0, WIDTH, WIDTH);
      if (empty) invite(context);
      context.globalCompositeOperation = "lighter";
      for (const layer of layers) context.drawImage(layer, 0, 0);
      if (!pen.keyboard) return;
      context.globalCompositeOperation = "source-over";
      context.strokeStyle = pen.down ? "#fff" : "#999";
      context.strokeRect(pen.x - PEN / 2, pen.y - PEN / 2, PEN, PEN);
    }

    function invite(context) {
      context.font = "24px system-ui, sans-serif";
      context.fillStyle = "#999";
      context.textAlign = "center";
      invitation.forEach((line, n) => context.fillText(line, WIDTH / 2, WIDTH / 2 + 30 * (n - (invitation.length - 1) / 2) + 8));
    }

    function tell() {
      changed(
        layers.map((layer) => {
          const data = layer.getContext("2d").getImageData(0, 0, WIDTH, WIDTH).data;
          return { ink: Float32Array.from({ length: WIDTH * WIDTH }, (_, n) => data[4 * n + 3] / 255), width: WIDTH };
        }),
      );
    }

    function clear() {
      empty = true;
      for (const layer of layers) layer.getContext("2d").clearRect(0, 0, WIDTH, WIDTH);
      show();
    }

    function place(event) {
      const box = canvas.getBoundingClientRect(), scale = WIDTH / box.width;
      return { x: (event.clientX - box.left) * scale, y: (event.clientY - box.top) * scale };
    }

    canvas.addEventListener("pointerdown", (event) => {
      if (!event.isPrimary || event.button !== 0) return; // a second finger, another button
      canvas.setPointerCapture(event.pointerId);
      Object.assign(pen, place(event), { down: true, keyboard: false });
      stroke(pen, pen);
      show();
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!event.isPrimary || !pen.down || pen.keyboard) return;
      const to = place(event);
      stroke(pen, to);
      Object.assign(pen, to);
      show();
    });
    for (const name of ["pointerup", "pointercancel"])
      canvas.addEventListener(name, (event) => {
        if (!event.isPrimary || !pen.down || pen.keyboard) return;
        pen.down = false;
        tell();
      });
    canvas.addEventListener("keydown", (event) => {
      const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
      if (event.key === " ") {
        if (event.repeat) return event.preventDefault();
        Object.assign(pen, { down: !(pen.keyboard && pen.down), keyboard: true });
        if (pen.down) stroke(pen, pen);
        else tell();
      } else if (event.key in moves) {
        const [right, down] = moves[event.key], limit = (part) => Math.max(0, Math.min(WIDTH, part));
        const to = { x: limit(pen.x + STEP * right), y: limit(pen.y + STEP * down) };
        if (pen.keyboard && pen.down) stroke(pen, to);
        Object.assign(pen, to, { keyboard: true, down: pen.keyboard && pen.down });
      } else return;
      event.preventDefault();
      show();
    });
    canvas.addEventListener("blur", () => {
      if (!pen.keyboard) return; // a pointer's stroke ends where the pointer is let go
      if (pen.down) tell();
      Object.assign(pen, { keyboard: false, down: false });
      show();
    });
    show();
    return { clear };
  }

  return { make };
})();
