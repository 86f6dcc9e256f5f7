// The network itself, in plain arithmetic: what capsnet/nn does, for one image at a time.
// Legend: i lower capsule, j digit, p lower pose, d upper pose, c channel, k place in a kernel.
const Network = (() => {
  // The bytes of the page: the length of a JSON text, the text, and the arrays that it lists.
  function unpack(buffer) {
    const length = new DataView(buffer).getUint32(0, true);
    const info = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
    const kinds = { int8: Int8Array, uint8: Uint8Array, float32: Float32Array };
    const arrays = {};
    for (const { name, kind, offset, count } of info.arrays)
      arrays[name] = new kinds[kind](buffer, 4 + length + offset, count);
    return { info, arrays };
  }

  // Whole numbers times the step of their row: the weights, in float32. Few weights are there as such.
  function weights(arrays, name) {
    if (!(name + ".step" in arrays)) return arrays[name];
    const whole = arrays[name], steps = arrays[name + ".step"];
    const found = new Float32Array(whole.length), width = whole.length / steps.length;
    for (let row = 0, n = 0; row < steps.length; row++)
      for (let end = n + width; n < end; n++) found[n] = whole[n] * steps[row];
    return found;
  }

  // [rows, columns] -> [columns, rows]: inner loops then run over neighbours.
  function transposed(matrix, rows, columns) {
    const found = new Float32Array(matrix.length);
    for (let row = 0; row < rows; row++)
      for (let column = 0; column < columns; column++)
        found[column * rows + row] = matrix[row * columns + column];
    return found;
  }

  class Encoder {
    constructor({ info, arrays }) {
      this.sizes = info.sizes;
      this.layers = info.layers.map((layer) => {
        const weight = weights(arrays, `${layer.name}.weight`); // [o, c, k] -> [c, k, o]
        return { ...layer, weight: transposed(weight, layer.outputs, weight.length / layer.outputs), bias: arrays[`${layer.name}.bias`] };
      });
      this.matrices = weights(arrays, "digit.weight");
      this.bias = arrays["digit.bias"];
    }

    // Votes of all lower capsules for all digits, [i, j, d], of an image [c, size, size] in 0..1.
    votes(image) {
      const { classes, lowerDim, upperDim } = this.sizes;
      const lower = this.lowerCapsules(this.features(image));
      const numLower = lower.length / lowerDim, found = new Float32Array(numLower * classes * upperDim);
      for (let i = 0, w = 0; i < numLower; i++)
        for (let j = 0; j < classes; j++) {
          const to = (i * classes + j) * upperDim;
          for (let p = 0; p < lowerDim; p++) {
            const u = lower[i * lowerDim + p];
            for (let d = 0; d < upperDim; d++, w++) found[to + d] += u * this.matrices[w];
          }
        }
      return found;
    }

    // All convolutions of an image [c, size, size]: [place, c].
    features(image) {
      let size = this.sizes.size, inputs = this.sizes.channels;
      let values = transposed(image, inputs, size * size);
      for (const layer of this.layers) {
        values = convolve(values, size, inputs, layer);
        size = Math.floor((size - layer.kernel) / layer.stride) + 1;
        inputs = layer.outputs;
      }
      return values;
    }

    // Features read as capsules type by type and row by row, squashed: [i, p].
    lowerCapsules(features) {
      const { lowerDim, grid } = this.sizes, places = grid * grid, outputs = features.length / places;
      const types = outputs / lowerDim, lower = new Float32Array(features.length);
      for (let type = 0; type < types; type++)
        for (let place = 0; place < places; place++) {
          const from = place * outputs + type * lowerDim;
          lower.set(squash(features.subarray(from, from + lowerDim)), (type * places + place) * lowerDim);
        }
      return lower;
    }

    // Procedure 1 for 1 to `most` passes. Of each: lengths [j], capsules [j, d], and where the votes
    // come from [j, place] with the coupling they had [j], weighted by what they add to s.
    route(votes, most) {
      const { classes, upperDim, grid, leaky } = this.sizes, places = grid * grid;
      const numLower = votes.length / (classes * upperDim), logits = new Float32Array(numLower * classes);
      const coupling = new Float32Array(numLower * classes), passes = [];
      for (let pass = 0; pass < most; pass++) {
        const s = this.bias ? Float32Array.from(this.bias) : new Float32Array(classes * upperDim);
        for (let i = 0; i < numLower; i++) {
          let peak = leaky ? 0 : -Infinity; // leaky: one more logit, always zero, whose share goes nowhere
          for (let j = 0; j < classes; j++) peak = Math.max(peak, logits[i * classes + j]);
          let total = leaky ? Math.exp(-peak) : 0;
          for (let j = 0; j < classes; j++) total += coupling[i * classes + j] = Math.exp(logits[i * classes + j] - peak);
          for (let j = 0; j < classes; j++) {
            const c = (coupling[i * classes + j] /= total), from = (i * classes + j) * upperDim;
            for (let d = 0; d < upperDim; d++) s[j * upperDim + d] += c * votes[from + d];
          }
        }
        const found = { lengths: [], couplings: [], capsules: new Float32Array(classes * upperDim), places: [] };
        for (let j = 0; j < classes; j++) {
          const sum = s.subarray(j * upperDim, (j + 1) * upperDim), capsule = squash(sum);
          found.capsules.set(capsule, j * upperDim);
          found.lengths.push(norm(capsule));
          const from = new Float32Array(places), squared = norm(sum) ** 2 || 1;
          let mean = 0;
          for (let i = 0; i < numLower; i++) {
            const at = i * classes + j;
            let along = 0;
            for (let d = 0; d < upperDim; d++) along += votes[at * upperDim + d] * sum[d];
            const share = (coupling[at] * along) / squared;
            from[i % places] += share;
            mean += share * coupling[at];
          }
          found.places.push(from);
          found.couplings.push(mean);
        }
        passes.push(found);
        for (let at = 0; at < logits.length; at++) {
          const j = at % classes;
          let agreement = 0;
          for (let d = 0; d < upperDim; d++) agreement += votes[at * upperDim + d] * found.capsules[j * upperDim + d];
          logits[at] += agreement;
        }
      }
      return passes;
    }
  }

  class Decoder {
    constructor({ info, arrays }) {
      this.upperDim = info.sizes.upperDim;
      const names = Object.keys(arrays).filter((name) => /^decoder\.layers\.\d+\.bias$/.test(name));
      const places = names.map((name) => Number(name.split(".")[2])).sort((a, b) => a - b);
      this.layers = places.map((n) => ({
        weight: weights(arrays, `decoder.layers.${n}.weight`),
        bias: arrays[`decoder.layers.${n}.bias`],
      }));
    }

    // The image [c, size, size] of the capsule [d] of one digit, the other capsules zero.
    image(capsule, digit) {
      let from = digit * this.upperDim, values = capsule;
      this.layers.forEach(({ weight, bias }, number) => {
        const width = weight.length / bias.length, found = new Float32Array(bias.length);
        for (let row = 0; row < bias.length; row++) {
          let sum = bias[row];
          const start = row * width + from;
          for (let n = 0; n < values.length; n++) sum += weight[start + n] * values[n];
          found[row] = number < this.layers.length - 1 ? Math.max(0, sum) : 1 / (1 + Math.exp(-sum));
        }
        values = found;
        from = 0;
      });
      return values;
    }
  }

  // [place, c] -> [place, o]. Zeros, as black pixels are, are skipped.
  function convolve(values, size, inputs, { kernel, stride, outputs, depthwise, relu, weight, bias }) {
    const width = Math.floor((size - kernel) / stride) + 1, sums = new Float32Array(width * width * outputs);
    for (let place = 0; place < width * width; place++) sums.set(bias, place * outputs);
    for (let ky = 0; ky < kernel; ky++)
      for (let kx = 0; kx < kernel; kx++)
        for (let y = 0; y < width; y++)
          for (let x = 0; x < width; x++) {
            const at = ((stride * y + ky) * size + stride * x + kx) * inputs, to = (y * width + x) * outputs;
            if (depthwise) {
              const from = (ky * kernel + kx) * outputs;
              for (let o = 0; o < outputs; o++) sums[to + o] += values[at + o] * weight[from + o];
              continue;
            }
            for (let c = 0; c < inputs; c++) {
              const value = values[at + c];
              if (value === 0) continue;
              const from = ((c * kernel + ky) * kernel + kx) * outputs;
              for (let o = 0; o < outputs; o++) sums[to + o] += value * weight[from + o];
            }
          }
    return relu ? sums.map((value) => Math.max(0, value)) : sums;
  }

  function norm(vector) {
    let sum = 0;
    for (const value of vector) sum += value * value;
    return Math.sqrt(sum);
  }

  // Eq. 1, as capsnet.nn.routing.squash.
  function squash(vector) {
    const length = norm(vector);
    return vector.map((value) => value * (length / (1 + length * length)));
  }

  return { unpack, Encoder, Decoder };
})();
