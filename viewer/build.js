// Bundle NiiVue into bundle/report/assets/viewer.js, and the licences of all that is in it into viewer.LICENSE.txt.
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const assets = join(here, "..", "bundle", "report", "assets");
const permissive = ["BSD-2-Clause", "ISC", "MIT"];

// NiiVue computes the gradients of every image anew, for a way of rendering that the report does not use: half of the
// time that a change of the picture takes without a GPU
const withoutGradients = {
    name: "without gradients",
    setup(builder) {
        builder.onLoad({ filter: /@niivue\/niivue\/build\/niivue\/index\.js$/ }, ({ path }) => {
            const call = "\n      this.gradientTexture = gradientGL({";
            const parts = readFileSync(path, "utf8").split(call);
            if (parts.length !== 2) {
                throw new Error("NiiVue computes gradients elsewhere now: look at withoutGradients.");
            }
            return { contents: parts.join(`\n      if (this.gradientTextureAmount > 0)${call}`), loader: "js" };
        });
    },
};

const result = await build({
    absWorkingDir: here,
    alias: { zarrita: join(here, "without_zarr.js") },
    bundle: true,
    entryPoints: ["entry.js"],
    format: "iife",
    globalName: "niivue",
    legalComments: "none",
    metafile: true,
    minify: true,
    plugins: [withoutGradients],
    target: "es2022",
    write: false,
});

// shader sources keep their lines: blanks at the ends of those mean nothing
const text = result.outputFiles[0].text.replace(/[ \t]+$/gm, "").trimEnd();
// an end of a script element inside a script would end it
writeFileSync(join(assets, "viewer.js"), text.replaceAll("</script", "<\\/script") + "\n");

const inputs = Object.values(result.metafile.outputs)[0].inputs;
const names = Object.entries(inputs)
    .filter(([, { bytesInOutput }]) => bytesInOutput > 0)
    .map(([path]) => /node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(path)?.[1])
    .filter(Boolean);
writeFileSync(join(assets, "viewer.LICENSE.txt"), [...new Set(names)].sort().map(licence).join("\n"));

function licence(name) {
    const folder = join(here, "node_modules", name);
    const { version, license, author } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
    if (!permissive.includes(license)) {
        throw new Error(`${name} is under ${license}: look before it is shipped.`);
    }
    const file = readdirSync(folder).find((file) => /^licen[cs]e/i.test(file));
    const kept = join(here, "licences", `${name.replace("/", "_")}.txt`);
    const terms = readFileSync(file ? join(folder, file) : kept, "utf8");
    const plain = terms.replaceAll("\r", "").replace(/[ \t]+$/gm, "").trim();
    return `${"=".repeat(80)}\n${name} ${version} (${license})${author ? `, ${author.name ?? author}` : ""}\n\n${plain}\n`;
}
