// Numbers in 0..1 -> pixels.
const Pictures = (() => {
  // One image as it is, or several as tints laid over each other: [[r, g, b], image], ...
  function paint(canvas, size, layers) {
    canvas.width = canvas.height = size;
    const context = canvas.getContext("2d"), data = context.createImageData(size, size);
    for (let n = 0; n < size * size; n++) {
      const colour = [0, 0, 0];
      for (const [tint, image] of layers) {
        const next = image.length > size * size ? size * size : 0; // from red to green to blue
        tint.forEach((part, at) => (colour[at] += part * image[at * next + n]));
      }
      for (let at = 0; at < 3; at++) data.data[4 * n + at] = Math.min(255, colour[at]);
      data.data[4 * n + 3] = 255;
    }
    context.putImageData(data, 0, 0);
  }

  const WHITE = [255, 255, 255], BLUE = [86, 180, 233], ORANGE = [230, 159, 0];

  // Lines of values in 0..1 over the passes; `marked` is drawn thick, `at` is where the slider is.
  function course(canvas, lines, marked, at) {
    const ratio = window.devicePixelRatio || 1, box = canvas.getBoundingClientRect();
    canvas.width = Math.max(1, box.width * ratio);
    canvas.height = Math.max(1, box.height * ratio);
    const context = canvas.getContext("2d"), style = getComputedStyle(canvas);
    context.scale(ratio, ratio);
    context.font = "12px system-ui, sans-serif";
    const widest = Math.max(...lines.map(({ name }) => context.measureText(name).width));
    const right = box.width - Math.max(24, Math.min(widest + 12, box.width / 3));
    const left = 30, bottom = box.height - 20, top = 8, count = lines[0].values.length;
    const x = (n) => left + ((right - left) * n) / (count - 1), y = (value) => bottom - (bottom - top) * value;
    const quiet = style.getPropertyValue("--quiet"), ink = style.getPropertyValue("--ink");
    const named = []; // heights of the names, which stand beside the ends of their lines if there is room
    context.fillStyle = context.strokeStyle = quiet;
    context.lineWidth = 0.5;
    for (const value of [0, 0.5, 1]) {
      context.strokeRect(left, y(value), right - left, 0);
      context.fillText(String(value), 4, y(value) + 4);
    }
    for (let n = 0; n < count; n++) context.fillText(String(n + 1), x(n) - 3, box.height - 5);
    context.strokeRect(x(at), top, 0, bottom - top);
    for (const { name, values, dashed } of [...lines].sort((one, other) => (other.name === marked) - (one.name === marked))) {
      const thick = name === marked;
      context.strokeStyle = context.fillStyle = thick ? style.getPropertyValue(dashed ? "--second" : "--first") : quiet;
      context.lineWidth = thick ? 2.5 : 1;
      context.setLineDash(dashed ? [6, 4] : []);
      context.beginPath();
      values.forEach((value, n) => context.lineTo(x(n), y(value)));
      context.stroke();
      context.setLineDash([]);
      const end = y(values[count - 1]);
      if (dashed || named.some((other) => Math.abs(other - end) < 10)) continue;
      context.fillText(name, right + 6, end + 4);
      named.push(end);
    }
    context.fillStyle = ink;
  }

  return { paint, course, WHITE, BLUE, ORANGE };
})();
