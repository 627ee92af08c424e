// Verdicts from an exported file in Node: npm install onnxruntime-node sharp; node decide.mjs osc.onnx images/*.png
// Or with raw pixels and no other package than onnxruntime: node decide.mjs osc.onnx --raw 32x32 pixels.rgb
import { readFile } from "node:fs/promises";

const [file, ...rest] = process.argv.slice(2);
const ort = await import("onnxruntime-node").catch(() => import("onnxruntime-web"));
const session = await ort.InferenceSession.create(await readFile(file));

async function pixels(path, height, width) {
  const sharp = (await import("sharp")).default;
  return sharp(path).removeAlpha().toColourspace("srgb").resize(width, height, { fit: "cover" }).raw().toBuffer();
}

async function decide(name, data, count, height, width) {
  const images = new ort.Tensor("uint8", new Uint8Array(data), [count, height, width, 3]);
  const { label, p_value } = await session.run({ images }, ["label", "p_value"]);
  for (let i = 0; i < count; i++) {
    const k = Number(label.data[i]);
    console.log(`${name}#${i}\t${k < 0 ? "unknown" : `class ${k}`}\t${p_value.data[i]}`);
  }
}

if (rest[0] === "--raw") {
  const [height, width] = rest[1].split("x").map(Number);
  const data = await readFile(rest[2]);
  await decide(rest[2], data, data.length / (height * width * 3), height, width);
} else {
  const [height, width] = (process.env.SIZE ?? "224x224").split("x").map(Number);
  for (const path of rest) await decide(path, await pixels(path, height, width), 1, height, width);
}
