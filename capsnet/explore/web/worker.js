// The slow half, apart from the page: first the network's bytes, then images to read.
let encoder = null;
onmessage = ({ data }) => {
  if (data.bytes) {
    encoder = new Network.Encoder(Network.unpack(data.bytes));
    postMessage({ ready: true });
  } else {
    const begun = performance.now();
    const passes = encoder.route(encoder.votes(data.image), data.most);
    postMessage({ number: data.number, passes, milliseconds: performance.now() - begun });
  }
};
