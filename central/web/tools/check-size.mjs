// Fails when the first load is above its limit: what the browser fetches before it shows the overview to who is signed in. What only
// other pages need (charts, the editor) comes later and does not count.
import { readFileSync, rmSync } from "node:fs";
import { gzipSync } from "node:zlib";

const LIMIT_BYTES = 100_000;
const FIRST_PAGES = ["index.html", "src/pages/Overview.svelte"];
const root = `${process.argv[2]}/`;
const manifest = JSON.parse(readFileSync(`${root}.vite/manifest.json`, "utf8"));
const files = new Set(["index.html", "theme.js", "favicon.svg"]);
const add = (name) => {
  const chunk = manifest[name];
  for (const file of [chunk.file, ...(chunk.css ?? [])]) files.add(file);
  for (const imported of chunk.imports ?? []) add(imported);
};
for (const page of FIRST_PAGES) add(page);
let gzip = 0;
let brotli = 0;
for (const file of files) {
  gzip += gzipSync(readFileSync(root + file), { level: 9 }).length;
  brotli += readFileSync(`${root + file}.br`).length;
}
// It is for this tool alone.
rmSync(`${root}.vite`, { recursive: true });
console.log(
  `first load: ${files.size} files, ${gzip} bytes with gzip, ${brotli} with brotli; at most ${LIMIT_BYTES}`,
);
if (gzip > LIMIT_BYTES) process.exit(1);
