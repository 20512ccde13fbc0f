/* Algorithm 2 of Ho & Salimans 2022, of ten pictures at once. Arrays hold the pictures one after another. */
import * as ort from "./ort.wasm.bundle.min.mjs";
import { foldIn, key, normal } from "./noise.js";

ort.env.wasm.numThreads = 1; // more need headers that most servers of pages do not send
const IMAGES = 10, NULL = 10; // a picture of each class; the null label
const sessions = {};
let latest; // the request that is being drawn

/* alpha^2 = sigmoid(lambda), sigma^2 = 1 - alpha^2. Equation 1. */
const alpha = lambda => Math.sqrt(1 / (1 + Math.exp(-lambda)));
const sigma = lambda => alpha(-lambda);

/* lambda_1 < ... < lambda_T, from -20 to 20. Section 3.1, measured from the nearer end. */
function grid(T) {
  const b = Math.atan(Math.exp(-10)), a = Math.PI / 2 - 2 * b;
  return Float32Array.from({ length: T }, (_, t) => {
    const u = T > 1 ? 1 - t / (T - 1) : 1;
    return u <= 0.5 ? -2 * Math.log(Math.tan(a * u + b)) : 2 * Math.log(Math.tan(a * (1 - u) + b));
  });
}

/* f of each element. */
const each = (f, ...arrays) => arrays[0].map((_, i) => f(...arrays.map(a => a[i])));
/* f of each picture's elements, a number for each element of the picture. */
function ofImage(f, ...arrays) {
  const size = arrays[0].length / IMAGES, parts = arrays.map(a => i => a.subarray(i * size, (i + 1) * size));
  const values = Array.from({ length: IMAGES }, (_, i) => f(...parts.map(part => part(i))));
  return arrays[0].map((_, i) => values[Math.floor(i / size)]);
}
const dot = (a, b) => a.reduce((sum, value, i) => sum + value * b[i], 0);
function std(a) {
  const mean = a.reduce((sum, value) => sum + value, 0) / a.length;
  return Math.sqrt(a.reduce((sum, value) => sum + (value - mean) ** 2, 0) / a.length);
}

const predictX = (z, eps, lambda) => each((z, eps) => (z - sigma(lambda) * eps) / alpha(lambda), z, eps);
const predictEps = (z, x, lambda) => each((z, x) => (z - alpha(lambda) * x) / sigma(lambda), z, x);

/* eps~ = (1 + w) eps(z, c) - w eps(z). Equation 6. */
const guide = (cond, uncond, w) => each((cond, uncond) => (1 + w) * cond - w * uncond, cond, uncond);

/* A rule gives the guided x. Those of docs/guidance.md, with the numbers that the page names. */
const RULES = {
  async equation6(eps, z, lambda, w) {
    return predictX(z, guide(await eps(z, lambda, true), await eps(z, lambda, false), w), lambda);
  },
  /* Kynkaanniemi et al. 2024 */
  async interval(eps, z, lambda, w) {
    return lambda >= -3 && lambda < 5 ? RULES.equation6(eps, z, lambda, w) : RULES.unguided(eps, z, lambda);
  },
  /* CFG-Zero*, Fan et al. 2025: Equation 6 of the velocity x - eps, v(z) scaled to the projection of v(z, c) on it. */
  async zeroStar(eps, z, lambda, w) {
    const velocity = async c => {
      const found = await eps(z, lambda, c);
      return each((x, eps) => x - eps, predictX(z, found, lambda), found);
    };
    const cond = await velocity(true), uncond = await velocity(false);
    const k = ofImage((cond, uncond) => dot(cond, uncond) / Math.max(dot(uncond, uncond), 1e-12), cond, uncond);
    const v = guide(cond, each((k, v) => k * v, k, uncond), w);
    return each((z, v) => (z + sigma(lambda) * v) / (alpha(lambda) + sigma(lambda)), z, v);
  },
  /* Lin et al. 2023: 0.7 of x at the spread that it has without guidance. */
  async rescaled(eps, z, lambda, w) {
    const cond = await eps(z, lambda, true), uncond = await eps(z, lambda, false);
    const x = predictX(z, guide(cond, uncond, w), lambda);
    const ratio = ofImage((plain, x) => std(plain) / (std(x) || 1), predictX(z, cond, lambda), x);
    return each((ratio, x) => (0.7 * ratio + 0.3) * x, ratio, x);
  },
  async unguided(eps, z, lambda) {
    return predictX(z, await eps(z, lambda, true), lambda);
  },
};

const SAMPLERS = {
  /* Line 6 of Algorithm 2: the mean of Equation 3, and v between the variances of Equation 4. */
  ancestral(z, x, eps, noise, lambda, next, v) {
    const r = Math.exp(lambda - next);
    const std = Math.sqrt(1 - r) * sigma(next) ** (1 - v) * sigma(lambda) ** v;
    const ofZ = r * alpha(next) / alpha(lambda), ofX = (1 - r) * alpha(next);
    return each((z, x, noise) => ofZ * z + ofX * x + std * noise, z, x, noise);
  },
  /* Song et al. 2021, without noise */
  ddim(z, x, eps, noise, lambda, next) {
    return each((x, eps) => alpha(next) * x + sigma(next) * eps, x, eps);
  },
};

/* Yields x of each step. The last is the sample. */
async function* walk(session, { side, w, T, v, sampler, rule, seed }) {
  const lambda = grid(T), shape = [IMAGES, side, side, 1];
  const classes = Int32Array.from({ length: IMAGES }, (_, c) => c), none = classes.map(() => NULL);
  const keys = [...classes].map(i => foldIn(key(seed), i));
  const noise = t => Float32Array.from(keys.flatMap(key => [...normal(foldIn(key, t), side * side)]));
  const eps = async (z, lambda, labelled) => (await session.run({
    z: new ort.Tensor("float32", z, shape),
    logsnr: new ort.Tensor("float32", new Float32Array(IMAGES).fill(lambda), [IMAGES]),
    c: new ort.Tensor("int32", labelled ? classes : none, [IMAGES]),
  })).eps.data;

  let z = noise(0);
  for (let t = 0; t < T; t++) {
    const guided = await RULES[w === 0 ? "unguided" : rule](eps, z, lambda[t], w);
    const x = each(x => Math.min(Math.max(x, -1), 1), guided);
    yield x;
    if (t + 1 < T)
      z = SAMPLERS[sampler](z, x, predictEps(z, x, lambda[t]), noise(t + 1), lambda[t], lambda[t + 1], v);
  }
}

/* Wait for the messages that are there. setTimeout would wait for four milliseconds more. */
const { port1, port2 } = new MessageChannel();
const turn = () => new Promise(resolve => { port1.onmessage = resolve; port2.postMessage(null); });

self.onmessage = async ({ data: asked }) => {
  latest = asked.id;
  try {
    // build.py has simplified the graph: doing it again would take longer than it saves
    sessions[asked.model] ??= ort.InferenceSession.create(`${asked.model}.onnx`, { graphOptimizationLevel: "disabled" });
    const session = await sessions[asked.model];
    let step = 0;
    for await (const x of walk(session, asked)) {
      await turn(); // a newer request is heard here
      if (latest !== asked.id) return;
      const grey = Uint8ClampedArray.from(x, value => Math.round((value + 1) * 127.5));
      self.postMessage({ id: asked.id, step: ++step, grey });
    }
  } catch (error) {
    self.postMessage({ id: asked.id, error: String(error.message ?? error) });
  }
};
