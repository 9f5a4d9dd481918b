// Runs in a worker: Pillow's resize in whole numbers, and the network in onnxruntime-web. `ort` is defined above this text.
"use strict";
let session, facts;

const SUPPORT = { bilinear: 1, bicubic: 2, lanczos: 3 };
const BITS = 22;

function filter(kind, x) {
  x = Math.abs(x);
  if (kind === "bilinear") return x < 1 ? 1 - x : 0;
  if (kind === "bicubic") {
    if (x < 1) return ((-0.5 + 2) * x - (-0.5 + 3)) * x * x + 1;
    return x < 2 ? (((x - 5) * x + 8) * x - 4) * -0.5 : 0;
  }
  const sinc = (v) => (v === 0 ? 1 : Math.sin(v * Math.PI) / (v * Math.PI));
  return x < 3 ? sinc(x) * sinc(x / 3) : 0;
}

// Python's round: halves go to the even number.
function round(x) {
  const low = Math.floor(x), rest = x - low;
  return rest < 0.5 || (rest === 0.5 && low % 2 === 0) ? low : low + 1;
}

// The box of the image that becomes the network's input; see sightline.pixels.geometry.plan.
function plan(width, height, p) {
  const [rows, columns] = p.size;
  if (p.fit === "squash") return { box: [0, 0, height, width], size: [rows, columns], offset: [0, 0] };
  if (p.fit === "pad") {
    const scale = Math.min(rows / height, columns / width);
    const inner = [Math.max(1, Math.min(round(height * scale), rows)), Math.max(1, Math.min(round(width * scale), columns))];
    return { box: [0, 0, height, width], size: inner, offset: [(rows - inner[0]) >> 1, (columns - inner[1]) >> 1] };
  }
  let tall, wide;
  if (rows === columns) {
    const short = Math.floor(rows / p.crop_fraction);
    const long = Math.floor((short * Math.max(width, height)) / Math.min(width, height));
    [tall, wide] = height <= width ? [short, long] : [long, short];
  } else {
    const ratio = Math.min(height / Math.trunc(rows / p.crop_fraction), width / Math.trunc(columns / p.crop_fraction));
    [tall, wide] = [Math.max(rows, round(height / ratio)), Math.max(columns, round(width / ratio))];
  }
  const top = round((tall - rows) / 2), left = round((wide - columns) / 2);
  const box = [(top * height) / tall, (left * width) / wide, (rows * height) / tall, (columns * width) / wide];
  return { box, size: [rows, columns], offset: [0, 0] };
}

// Means of blocks, as Pillow's Image.reduce: image {data, width, height}, four channels.
function reduce(image, fx, fy, box) {
  const [left, top, right, bottom] = box;
  const width = Math.ceil((right - left) / fx), height = Math.ceil((bottom - top) / fy);
  const out = new Uint8Array(width * height * 4);
  for (let y = 0; y < height; y++) {
    const y0 = top + y * fy, y1 = Math.min(y0 + fy, bottom);
    for (let x = 0; x < width; x++) {
      const x0 = left + x * fx, x1 = Math.min(x0 + fx, right);
      const n = (x1 - x0) * (y1 - y0), half = n >> 1;
      const multiplier = Math.floor(Math.fround(4294967296 / Math.fround(256 * n)));
      let r = half, g = half, b = half, a = half;
      for (let v = y0; v < y1; v++) {
        for (let i = (v * image.width + x0) * 4, end = (v * image.width + x1) * 4; i < end; i += 4) {
          r += image.data[i]; g += image.data[i + 1]; b += image.data[i + 2]; a += image.data[i + 3];
        }
      }
      const o = (y * width + x) * 4;
      if (n === 1) { out[o] = r; out[o + 1] = g; out[o + 2] = b; out[o + 3] = a; continue; }
      out[o] = Math.floor((r * multiplier) / 16777216); out[o + 1] = Math.floor((g * multiplier) / 16777216);
      out[o + 2] = Math.floor((b * multiplier) / 16777216); out[o + 3] = Math.floor((a * multiplier) / 16777216);
    }
  }
  return { data: out, width, height };
}

function weights(size, low, high, out, kind) {
  low = Math.fround(low); high = Math.fround(high);
  const scale = Math.fround(high - low) / out, stretch = Math.max(scale, 1), support = SUPPORT[kind] * stretch;
  const result = [];
  for (let i = 0; i < out; i++) {
    const centre = low + (i + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - support + 0.5)), last = Math.min(size, Math.trunc(centre + support + 0.5));
    const w = new Float64Array(last - first);
    let sum = 0;
    for (let x = 0; x < w.length; x++) sum += w[x] = filter(kind, (x + first - centre + 0.5) * (1 / stretch));
    const k = new Int32Array(w.length);
    for (let x = 0; x < w.length; x++) {
      const share = (sum === 0 ? w[x] : w[x] / sum) * (1 << BITS);
      k[x] = Math.trunc(share < 0 ? share - 0.5 : share + 0.5);
    }
    result.push({ first, k });
  }
  return result;
}

const clip = (sum) => Math.max(0, Math.min(255, sum >> BITS));

function horizontal(image, table) {
  const width = table.length, out = new Uint8Array(width * image.height * 4);
  for (let y = 0; y < image.height; y++) {
    for (let x = 0; x < width; x++) {
      const { first, k } = table[x];
      let r = 1 << (BITS - 1), g = r, b = r, a = r;
      for (let j = 0, i = (y * image.width + first) * 4; j < k.length; j++, i += 4) {
        r += image.data[i] * k[j]; g += image.data[i + 1] * k[j]; b += image.data[i + 2] * k[j]; a += image.data[i + 3] * k[j];
      }
      const o = (y * width + x) * 4;
      out[o] = clip(r); out[o + 1] = clip(g); out[o + 2] = clip(b); out[o + 3] = clip(a);
    }
  }
  return { data: out, width, height: image.height };
}

function vertical(image, table) {
  const height = table.length, stride = image.width * 4, out = new Uint8Array(stride * height);
  for (let y = 0; y < height; y++) {
    const { first, k } = table[y];
    for (let x = 0; x < stride; x++) {
      let sum = 1 << (BITS - 1);
      for (let j = 0, i = first * stride + x; j < k.length; j++, i += stride) sum += image.data[i] * k[j];
      out[y * stride + x] = clip(sum);
    }
  }
  return { data: out, width: image.width, height };
}

// Image.resize of Pillow with reducing_gap 3: box is [left, top, right, bottom], size [width, height].
function resize(image, box, size, kind) {
  if (image.width === size[0] && image.height === size[1] && box[0] === 0 && box[1] === 0 && box[2] === size[0] && box[3] === size[1])
    return image;
  if (kind === "nearest") return nearest(image, box, size);
  const scale = [(box[2] - box[0]) / size[0], (box[3] - box[1]) / size[1]];
  const factor = scale.map((s) => Math.max(1, Math.trunc(s / 3)));
  if (factor[0] > 1 || factor[1] > 1) {
    const margin = scale.map((s) => (SUPPORT[kind] - 0.5) * s);
    const safe = [
      Math.max(0, Math.trunc(box[0] - margin[0])), Math.max(0, Math.trunc(box[1] - margin[1])),
      Math.min(image.width, Math.ceil(box[2] + margin[0])), Math.min(image.height, Math.ceil(box[3] + margin[1])),
    ];
    image = reduce(image, factor[0], factor[1], safe);
    box = [0, 1, 2, 3].map((i) => (box[i] - safe[i % 2]) / factor[i % 2]);
  }
  const across = weights(image.width, box[0], box[2], size[0], kind), down = weights(image.height, box[1], box[3], size[1], kind);
  const tallFirst = facts.vertical_first && size[1] < image.height && 2 * (image.width - size[0]) < image.height - size[1];
  return tallFirst ? horizontal(vertical(image, down), across) : vertical(horizontal(image, across), down);
}

function nearest(image, box, [width, height]) {
  const out = new Uint8Array(width * height * 4);
  const b = box.map(Math.fround), sx = Math.fround(b[2] - b[0]) / width, sy = Math.fround(b[3] - b[1]) / height;
  let v = b[1] + sy * 0.5;
  for (let y = 0; y < height; y++, v += sy) {
    let u = b[0] + sx * 0.5;
    for (let x = 0; x < width; x++, u += sx) {
      const i = (Math.min(image.height - 1, Math.trunc(v)) * image.width + Math.min(image.width - 1, Math.trunc(u))) * 4;
      out.set(image.data.subarray(i, i + 4), (y * width + x) * 4);
    }
  }
  return { data: out, width, height };
}

// As Pillow's MULDIV255.
const scale255 = (value, alpha) => { const t = value * alpha + 128; return ((t >> 8) + t) >> 8; };

// Pixels {data RGBA, width, height} → the network's input uint8 (height, width, 3).
function preprocess(image, p) {
  const { box, size, offset } = plan(image.width, image.height, p);
  const corners = [
    Math.max(0, box[1]), Math.max(0, box[0]), Math.min(image.width, box[1] + box[3]), Math.min(image.height, box[0] + box[2]),
  ];
  let opaque = true;
  for (let i = 3; i < image.data.length && opaque; i += 4) opaque = image.data[i] === 255;
  const nearestKind = p.interpolation === "nearest";
  if (!opaque && !nearestKind) {
    const data = new Uint8Array(image.data);
    for (let i = 0; i < data.length; i += 4) for (let c = 0; c < 3; c++) data[i + c] = scale255(data[i + c], data[i + 3]);
    image = { data, width: image.width, height: image.height };
  }
  const small = resize(image, corners, [size[1], size[0]], p.interpolation);
  const [rows, columns] = p.size, out = new Uint8Array(rows * columns * 3), mean = p.mean.map((m) => round(255 * m));
  if (size[0] !== rows || size[1] !== columns) for (let i = 0; i < out.length; i++) out[i] = mean[i % 3];
  for (let y = 0; y < size[0]; y++) {
    for (let x = 0; x < size[1]; x++) {
      const i = (y * size[1] + x) * 4, o = ((y + offset[0]) * columns + x + offset[1]) * 3, alpha = small.data[i + 3];
      for (let c = 0; c < 3; c++) {
        let value = small.data[i + c];
        if (!opaque) {
          if (!nearestKind && alpha !== 0 && alpha !== 255) value = Math.min(255, Math.trunc((255 * value) / alpha));
          value = Math.floor((value * alpha + p.background * (255 - alpha) + 127) / 255);
        }
        out[o + c] = value;
      }
    }
  }
  return out;
}

async function run(image) {
  const feeds = {};
  facts.inputs.forEach((p, i) => {
    feeds[`pixels_${i + 1}`] = new ort.Tensor("uint8", preprocess(image, p), [1, ...p.size, 3]);
  });
  const results = await session.run(feeds);
  const score = results.ood_score;
  return { probabilities: Array.from(results.probabilities.data), ood: score ? score.data[0] : null, inputs: feeds };
}

self.onmessage = async ({ data }) => {
  try {
    if (data.kind === "start") {
      facts = data.facts;
      Object.assign(ort.env.wasm, { numThreads: 1, proxy: false, wasmBinary: data.wasm });
      session = await ort.InferenceSession.create(new Uint8Array(data.model), { executionProviders: ["wasm"] });
      await run({ data: new Uint8Array(4 * 16 * 16).fill(255), width: 16, height: 16 }); // the first run compiles
      self.postMessage({ kind: "ready" });
    } else {
      const started = performance.now();
      const { probabilities, ood, inputs } = await run(data.image);
      const pixels = data.withPixels ? Object.values(inputs).map((tensor) => Array.from(tensor.data)) : null;
      self.postMessage({ kind: "result", id: data.id, probabilities, ood, pixels, milliseconds: performance.now() - started });
    }
  } catch (error) {
    self.postMessage({ kind: "failed", id: data.id, message: String(error.message || error) });
  }
};
