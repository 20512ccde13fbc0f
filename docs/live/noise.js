/* The noise of jax.random, so that a seed is one picture here and in Python.
   Threefry-2x32: Salmon et al. 2011. A normal number is sqrt(2) erfinv(u): Giles 2010, in single precision. */

const ROTATIONS = [[13, 15, 26, 6], [17, 29, 16, 24]];
const CENTRE = [2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087, -0.00125372503,
  -0.00417768164, 0.246640727, 1.50140941];
const TAIL = [-0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773, -0.0076224613,
  0.00943887047, 1.00167406, 2.83297682];

function threefry([k0, k1], a, b) {
  const keys = [k0, k1, k0 ^ k1 ^ 0x1bd11bda];
  a = a + k0 | 0;
  b = b + k1 | 0;
  for (let group = 1; group <= 5; group++) {
    for (const r of ROTATIONS[(group + 1) % 2]) {
      a = a + b | 0;
      b = (b << r | b >>> 32 - r) ^ a;
    }
    a = a + keys[group % 3] | 0;
    b = b + keys[(group + 1) % 3] + group | 0;
  }
  return [a, b];
}

function erfinv(u) {
  let w = -Math.log1p(-u * u);
  const centre = w < 5;
  w = centre ? w - 2.5 : Math.sqrt(w) - 3;
  return u * (centre ? CENTRE : TAIL).reduce((sum, c) => sum * w + c);
}

export const key = seed => [0, seed];
export const foldIn = (key, i) => threefry(key, 0, i);

export function normal(key, count) {
  return Float32Array.from({ length: count }, (_, i) => {
    const [a, b] = threefry(key, 0, i);
    const u = Math.fround(2 * (((a ^ b) >>> 9) / 2 ** 23) - 1 + 2 ** -24); // in (-1, 1)
    return Math.SQRT2 * erfinv(u);
  });
}
