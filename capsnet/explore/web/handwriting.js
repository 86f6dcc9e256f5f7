// Drawn ink -> what the network takes, as capsnet/reading/handwriting.py has it, but for the way of shrinking: each new pixel
// is the mean of the old ones under it. All ink of a layer is the digit: what capsnet/reading/page.py sets aside on a
// photograph (shadows, lines, a desk, specks, other marks) is not looked for, and thin strokes stay thin.
const Handwriting = (() => {
  const FAINT = 0.1; // of full ink: fainter pixels do not count for the box
  const MARGIN = 1; // pixels without ink at the edge, if there is room

  // Ink [size, size] in 0..1 from a layer {ink, width}. `near`: the centre stays where it was
  // drawn, up to so many pixels from the middle; null: in the middle. Null for no ink.
  // box: the longer side of what is drawn, pixels. centre: of its "mass" or of its "box".
  function fit(layer, size, near, { box, centre }) {
    const scaled = scale(layer, box);
    if (scaled === null) return null;
    const { pixels, height, width, drawn } = scaled, found = new Float32Array(size * size);
    const middle = drawn.map((part) => {
      if (near === null) return size / 2;
      return size / 2 + Math.max(-near, Math.min(near, Math.round((part - 0.5) * size)));
    });
    const top = place(profile(pixels, height, width, true), size, middle[0], centre);
    const left = place(profile(pixels, height, width, false), size, middle[1], centre);
    for (let y = 0; y < height; y++)
      for (let x = 0; x < width; x++) found[(top + y) * size + left + x] = pixels[y * width + x];
    return found;
  }

  // The box around the ink, its longer side `box` pixels, its fullest pixel 1; and where the middle of
  // the box was drawn, as shares of the canvas.
  function scale({ ink, width }, box) {
    const height = ink.length / width;
    let top = height, bottom = -1, left = width, right = -1;
    for (let n = 0; n < ink.length; n++) {
      if (ink[n] <= FAINT) continue;
      const y = Math.floor(n / width), x = n % width;
      top = Math.min(top, y);
      bottom = Math.max(bottom, y);
      left = Math.min(left, x);
      right = Math.max(right, x);
    }
    if (bottom < 0) return null;
    const rows = bottom - top + 1, columns = right - left + 1, factor = box / Math.max(rows, columns);
    const to = { height: Math.max(1, rounded(rows * factor)), width: Math.max(1, rounded(columns * factor)) };
    const down = overlaps(rows, to.height), across = overlaps(columns, to.width);
    const pixels = new Float32Array(to.height * to.width);
    let most = 0;
    for (let y = 0; y < to.height; y++)
      for (let x = 0; x < to.width; x++) {
        let sum = 0;
        for (const [row, share] of down[y])
          for (const [column, part] of across[x]) sum += share * part * ink[(top + row) * width + left + column];
        pixels[y * to.width + x] = sum;
        most = Math.max(most, sum);
      }
    const drawn = [(top + rows / 2) / height, (left + columns / 2) / width];
    return { pixels: pixels.map((value) => value / most), ...to, drawn };
  }

  // Which old pixels lie under each new one, and with what share of it.
  function overlaps(count, wanted) {
    const step = count / wanted;
    return Array.from({ length: wanted }, (_, n) => {
      const found = [];
      for (let old = Math.floor(n * step); old < Math.min(count, Math.ceil((n + 1) * step)); old++) {
        const share = Math.min(old + 1, (n + 1) * step) - Math.max(old, n * step);
        if (share > 1e-9) found.push([old, share / step]);
      }
      return found;
    });
  }

  function profile(pixels, height, width, rows) {
    const sums = new Float32Array(rows ? height : width);
    for (let n = 0; n < pixels.length; n++) sums[rows ? Math.floor(n / width) : n % width] += pixels[n];
    return sums;
  }

  // Where along one axis the box begins, so that its centre is at `middle`.
  function place(sums, size, middle, centre) {
    let total = 0, moment = 0;
    sums.forEach((value, n) => {
      total += value;
      moment += value * n;
    });
    const room = size - sums.length, margin = Math.min(MARGIN, Math.floor(room / 2));
    const own = centre === "box" ? sums.length / 2 : moment / total;
    return Math.max(margin, Math.min(room - margin, rounded(middle - own)));
  }

  // As Python rounds: halves to the even neighbour. Straight strokes make them.
  function rounded(value) {
    const up = Math.round(value);
    return Math.abs(value % 1) === 0.5 && up % 2 !== 0 ? up - 1 : up;
  }

  // Layers laid over each other as pairs of digits are: added and clipped, or their maximum.
  function overlay(images, size, combine) {
    const found = new Float32Array(size * size);
    const both = combine === "max" ? Math.max : (one, other) => Math.min(1, one + other);
    for (const image of images) image.forEach((value, n) => (found[n] = both(found[n], value)));
    return found;
  }

  return { fit, overlay };
})();
