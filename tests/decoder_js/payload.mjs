// Zstandard and age.

import { webcrypto } from "node:crypto";

import { decompress, init } from "@bokuweb/zstd-wasm";

import { Refusal } from "./refusal.mjs";

const MOST_CONTENT = 8388608n;
const MOST_WINDOW = 8 * 1024 * 1024;
const MOST_AGE_HEADER = 4096;
const CHECKSUM_WRONG = 22; // libzstd's number

globalThis.crypto ??= webcrypto; // Node 18
const { Decrypter } = await import("age-encryption");

/** Whether an age file's header ends within the limit: its last line is `--- ` and 43 characters. */
function headerEnds(payload) {
  const start = Buffer.from(payload.buffer, payload.byteOffset, Math.min(payload.length, MOST_AGE_HEADER));
  return /\n--- [^\n]{43}\n/.test(start.toString("latin1"));
}

/** Opens an age file with the first of the identities that fits. */
export async function opened(payload, identities) {
  if (payload.length > MOST_AGE_HEADER && !headerEnds(payload)) throw new Refusal("S2", `its header does not end within ${MOST_AGE_HEADER} bytes`);
  try {
    const decrypter = new Decrypter();
    for (const identity of identities) decrypter.addIdentity(identity);
    return await decrypter.decrypt(payload);
  } catch (error) {
    throw new Refusal("S1", error.message);
  }
}

/** The content of one Zstandard frame. */
export async function content(frame) {
  if (lengthOf(frame) !== frame.length) throw new Refusal("Z4", "bytes follow the Zstandard frame");
  // The module reserves what the frame states, which was looked at.
  await (content.ready ??= init());
  try {
    return decompress(frame);
  } catch (error) {
    if (error.message.endsWith(`code -${CHECKSUM_WRONG}`)) throw new Refusal("Z5", "the content's checksum is wrong");
    throw new Refusal("Z4", "the Zstandard frame is damaged");
  }
}

/** How long the frame is, when its header is within the limits. */
function lengthOf(frame) {
  const damaged = new Refusal("Z4", "no Zstandard frame, or damaged");
  const view = new DataView(frame.buffer, frame.byteOffset, frame.length);
  const need = (end) => {
    if (end > frame.length) throw damaged;
  };
  need(5);
  if (view.getUint32(0, true) !== 0xfd2fb528) throw damaged; // skippable frames begin otherwise
  const descriptor = frame[4];
  if (descriptor & 0x08) throw damaged; // reserved, 0
  const single = (descriptor & 0x20) !== 0;
  const idSize = [0, 1, 2, 4][descriptor & 3];
  const sizeSize = [single ? 1 : 0, 2, 4, 8][descriptor >> 6];
  let at = 5 + (single ? 0 : 1);
  need(at + idSize + sizeSize);
  for (let end = at + idSize; at < end; at++) {
    if (frame[at] !== 0) throw new Refusal("Z3", "it needs a dictionary");
  }
  if (sizeSize === 0) throw new Refusal("Z1", "the frame states no content size");
  let size = 0n;
  for (let n = sizeSize - 1; n >= 0; n--) size = (size << 8n) | BigInt(frame[at + n]);
  if (sizeSize === 2) size += 256n;
  if (size === 0n || size > MOST_CONTENT) throw new Refusal("Z1", `a content of ${size} bytes`);
  const base = 2 ** (10 + (frame[5] >> 3));
  const window = single ? Number(size) : base + (base / 8) * (frame[5] & 7);
  if (window > MOST_WINDOW) throw new Refusal("Z2", `a window of ${window} bytes`);
  at += sizeSize;
  for (let last = false; !last;) {
    need(at + 3);
    const block = frame[at] | (frame[at + 1] << 8) | (frame[at + 2] << 16);
    last = (block & 1) !== 0;
    at += 3 + (((block >> 1) & 3) === 1 ? 1 : block >> 3); // a run is one byte
    need(at);
  }
  if (descriptor & 0x04) at += 4; // checksum
  need(at);
  return at;
}
