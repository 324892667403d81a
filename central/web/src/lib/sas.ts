// The password of a device that proves itself by a symmetric key, made here so that the pasteable lines work as they stand. The
// browser's own cryptography is there on https and loopback only, and a plant's central may be on neither.

const K = new Uint32Array(64);
const INITIAL = new Uint32Array(8);

// The constants of SHA-256 are the first bits of the fractions of square and cube roots of primes (FIPS 180-4, 4.2.2 and 5.3.3).
for (let prime = 2, found = 0; found < 64; prime += 1) {
  let isPrime = true;
  for (let factor = 2; factor * factor <= prime && isPrime; factor += 1) isPrime = prime % factor !== 0;
  if (!isPrime) continue;
  if (found < 8) INITIAL[found] = fraction(prime ** (1 / 2));
  K[found] = fraction(prime ** (1 / 3));
  found += 1;
}

function fraction(root: number): number {
  return ((root - Math.floor(root)) * 2 ** 32) >>> 0;
}

const rotate = (word: number, by: number) => (word >>> by) | (word << (32 - by));

export function sha256(message: Uint8Array): Uint8Array {
  const length = ((message.length + 8) >> 6) * 64 + 64;
  const padded = new Uint8Array(length);
  padded.set(message);
  padded[message.length] = 0x80;
  const view = new DataView(padded.buffer);
  view.setUint32(length - 8, Math.floor(message.length / 2 ** 29));
  view.setUint32(length - 4, (message.length << 3) >>> 0);
  const hash = new Uint32Array(INITIAL);
  const words = new Uint32Array(64);
  for (let block = 0; block < length; block += 64) {
    for (let at = 0; at < 16; at += 1) words[at] = view.getUint32(block + at * 4);
    compress(hash, words);
  }
  const digest = new Uint8Array(32);
  const out = new DataView(digest.buffer);
  hash.forEach((word, at) => {
    out.setUint32(at * 4, word);
  });
  return digest;
}

function compress(hash: Uint32Array, words: Uint32Array): void {
  const at = (array: Uint32Array, index: number) => array[index] as number;
  for (let t = 16; t < 64; t += 1) {
    const early = at(words, t - 15);
    const late = at(words, t - 2);
    const s0 = rotate(early, 7) ^ rotate(early, 18) ^ (early >>> 3);
    const s1 = rotate(late, 17) ^ rotate(late, 19) ^ (late >>> 10);
    words[t] = (at(words, t - 16) + s0 + at(words, t - 7) + s1) >>> 0;
  }
  let [a, b, c, d, e, f, g, h] = hash as unknown as [
    number,
    number,
    number,
    number,
    number,
    number,
    number,
    number,
  ];
  for (let t = 0; t < 64; t += 1) {
    const s1 = rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25);
    const first = (h + s1 + ((e & f) ^ (~e & g)) + at(K, t) + at(words, t)) >>> 0;
    const s0 = rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22);
    const second = (s0 + ((a & b) ^ (a & c) ^ (b & c))) >>> 0;
    [h, g, f, e, d, c, b, a] = [g, f, e, (d + first) >>> 0, c, b, a, (first + second) >>> 0];
  }
  [a, b, c, d, e, f, g, h].forEach((word, index) => {
    hash[index] = (at(hash, index) + word) >>> 0;
  });
}

export function hmacSha256(key: Uint8Array, message: Uint8Array): Uint8Array {
  const block = new Uint8Array(64);
  block.set(key.length > 64 ? sha256(key) : key);
  const inner = new Uint8Array(64 + message.length);
  const outer = new Uint8Array(96);
  block.forEach((byte, at) => {
    inner[at] = byte ^ 0x36;
    outer[at] = byte ^ 0x5c;
  });
  inner.set(message, 64);
  outer.set(sha256(inner), 64);
  return sha256(outer);
}

function fromBase64(text: string): Uint8Array {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

function toBase64(bytes: Uint8Array): string {
  return btoa(String.fromCharCode(...bytes));
}

/** `SharedAccessSignature sr=…&sig=…&se=…` for the resource `HOST/devices/ID`, as Azure's SDKs make it. */
export function sasToken(hostName: string, deviceId: string, key: string, expiresAtSecs: number): string {
  const resource = encodeURIComponent(`${hostName}/devices/${deviceId}`);
  const signed = new TextEncoder().encode(`${resource}\n${expiresAtSecs}`);
  const signature = encodeURIComponent(toBase64(hmacSha256(fromBase64(key), signed)));
  return `SharedAccessSignature sr=${resource}&sig=${signature}&se=${expiresAtSecs}`;
}
