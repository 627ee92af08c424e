// An exported file in onnxruntime-web (WebAssembly): node export_web.mjs MODULES osc.onnx N H W < pixels.rgb > outputs.json
import { readFile } from "node:fs/promises";
import { pathToFileURL } from "node:url";

const [modules, file, ...shape] = process.argv.slice(2);
const web = `${modules}/onnxruntime-web`;
const { main } = JSON.parse(await readFile(`${web}/package.json`));
const loaded = await import(pathToFileURL(`${web}/${main}`));
const ort = loaded.default ?? loaded;
ort.env.wasm.numThreads = 1;
const parts = [];
for await (const part of process.stdin) parts.push(part);
const session = await ort.InferenceSession.create(await readFile(file), { executionProviders: ["wasm"] });
const images = new ort.Tensor("uint8", new Uint8Array(Buffer.concat(parts)), shape.map(Number));
const made = await session.run({ images });
const said = Object.entries(made).map(([name, t]) => [name, { dims: t.dims, data: Array.from(t.data, (x) => (Number.isFinite(Number(x)) ? Number(x) : null)) }]);
process.stdout.write(JSON.stringify(Object.fromEntries(said)));
