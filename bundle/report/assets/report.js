"use strict";
// The page of one registration. NiiVue draws the volumes (global `niivue`); what is drawn is put together here.
// Volumes lie on one grid, axes left to right, posterior to anterior, inferior to superior; its affine is LPS, in mm.

const report = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const TITLES = { moving: "moving, by its header", aligned: "moving, aligned", warped: "moving, warped" };
const MODE_KEYS = { 1: "side", 2: "swipe", 3: "flicker", 4: "checkerboard", 5: "difference" };
const OTHER_KEYS = { m: "moving", a: "aligned", w: "warped" };
const OVERLAY_KEYS = { n: "none", g: "grid", j: "jacobian", l: "contours" };
const STEPS = {
    ArrowLeft: [-1, 0, 0], ArrowRight: [1, 0, 0], ArrowUp: [0, 1, 0], ArrowDown: [0, -1, 0],
    PageUp: [0, 0, 1], PageDown: [0, 0, -1],
};
// by Okabe and Ito, told apart by colour-blind eyes
const FIXED_COLOUR = [86, 180, 233];
const MOVED_COLOUR = [230, 159, 0];
const HEADER_BYTES = 352;
const TILES = 8;
const GRID_LINES = 24;
const GRID_COLOUR = [127, 208, 255];
const FOLDED = 255; // level of the Jacobian
const BLACK = 20; // levels of an image up to this are
const UNCHANGED = 0.1; // part of a volume whose change is left clear
const FLICKER_MS = 600;

const state = { mode: "side", other: "warped", overlay: "none", front: "right", swipe: 50 };
const shape = report.grid.shape;
const spacing = [0, 1, 2].map((axis) => Math.hypot(...[0, 1, 2].map((row) => report.grid.affine[row][axis])));
const arrays = {};
let field = null;
let reachedByKeys = false; // the control that has the focus
let left = null;
let right = null;
let started = false; // until then nothing is drawn that the next step would draw anew

// ---- numbers and words

function element(tag, text = "", className = "") {
    const made = document.createElement(tag);
    made.textContent = text;
    made.className = className;
    return made;
}

function tellNumbers() {
    const { summary, judgement } = report;
    for (const finding of judgement.findings) {
        const item = element("li", finding.sentence, finding.level.replace(" ", "-"));
        item.append(element("div", finding.look, "look"));
        byId("findings").append(item);
    }
    if (!judgement.findings.length) {
        const item = element("li", "All numbers are within their bounds.", "good");
        item.append(element("div", "A glance still pays: flicker between fixed and warped, here and there.", "look"));
        byId("findings").append(item);
    }
    const stages = (name) => ["before", "aligned", "after"].map((s) => number(summary[`${name}_${s}`], 3)).join(" → ");
    const rows = [["similarity_gain", "likeness (local NCC), headers → aligned → warped", stages("similarity")]];
    if ("dice_after" in summary) {
        rows.push(["dice_after", "overlap of labels (mean Dice), headers → aligned → warped", stages("dice")]);
    }
    for (const [name, title, digits, unit] of MEASURES) {
        rows.push([name, title, number(summary[name], digits, unit)]);
    }
    const uncalibrated = (summary.notes ?? []).some((note) => note.startsWith("expected error:"));
    for (const [name, title, digits, unit] of EXPECTED_ERROR.filter(([measure]) => measure in summary)) {
        rows.push([name, title + (uncalibrated ? " (not calibrated: see below)" : ""), number(summary[name], digits, unit)]);
    }
    const levels = Object.fromEntries(judgement.findings.map((f) => [f.measure, f.level.replace(" ", "-")]));
    for (const [name, title, value] of rows) {
        const row = element("tr", "", levels[name] ?? "");
        const head = element("th", title);
        head.scope = "row";
        row.append(head, element("td", value));
        byId("numbers").tBodies[0].append(row);
    }
    const dropped = "The alignment found left the images less alike than their headers and was dropped: the headers count.";
    for (const note of [...(summary.notes ?? []), ...(summary.alignment_dropped ? [dropped] : [])]) {
        byId("notes").append(element("li", note));
    }
}

const MEASURES = [
    ["foreground_similarity", "structures match (0 to 1)", 3, ""],
    ["foreground_dice", "outlines match (0 to 1)", 3, ""],
    ["common_view_percent", "fixed anatomy within the moving image", 1, " %"],
    ["rotation_degrees", "rotation", 1, "°"],
    ["stretch", "stretch (1: even)", 3, ""],
    ["volume_ratio", "volume of moving to fixed", 3, ""],
    ["max_displacement_mm", "largest displacement", 1, " mm"],
    ["max_nonrigid_displacement_mm", "largest beyond a rigid motion", 1, " mm"],
    ["foreground_log_jacobian_sd", "spread of volume change (SD of log-Jacobian)", 3, ""],
    ["folding_percent", "folded", 4, " %"],
];

// of what the fixed image shows; estimated on request alone
const EXPECTED_ERROR = [
    ["expected_error_mean_mm", "expected error, mean", 2, " mm"],
    ["expected_error_p95_mm", "expected error, 95th percentile", 2, " mm"],
    ["expected_error_above_2mm_percent", "expected error above 2 mm", 1, " %"],
];

function number(value, digits, unit = "") {
    return typeof value === "number" ? value.toFixed(digits) + unit : "not measurable";
}

function tellProvenance() {
    const { summary } = report;
    const rows = { command: summary.command, time: summary.time, fixed: summary.fixed, moving: summary.moving };
    const other = summary.settings?.averaged_with;
    rows.weights = summary.weights;
    if (other) {
        rows.weights += ` and ${other.weights} (counting ${other.share}), averaged`;
    }
    rows["SHA-256 of the weights"] = summary.weights_sha256;
    rows.versions = Object.entries(summary.versions ?? {}).map(([k, v]) => `${k} ${v}`).join(", ");
    rows.settings = Object.entries(summary.settings ?? {}).map(([k, v]) => `${k} ${JSON.stringify(v)}`).join(", ");
    rows.device = summary.device;
    rows.seconds = summary.seconds?.total;
    for (const [role, file] of Object.entries(summary.inputs ?? {})) {
        rows[`SHA-256 of ${role}`] = file.sha256;
    }
    for (const [name, value] of Object.entries(rows)) {
        if (value !== undefined && value !== "") {
            byId("provenance").append(element("dt", name), element("dd", String(value)));
        }
    }
    const sizes = spacing.map((s) => s.toFixed(2)).join(" × ");
    byId("resolution").textContent =
        `Images are drawn on ${shape.join(" × ")} voxels of ${sizes} mm, in 255 levels between their percentiles 0.5 and ` +
        "99.5; the files beside this page hold them as they are." +
        (report.field ? "" : " There is no field: the transform is linear, and warped is aligned.");
}

// ---- volumes

async function unpack(base64) {
    const text = atob(base64);
    const bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) {
        bytes[i] = text.charCodeAt(i);
    }
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).arrayBuffer();
}

async function readVolume(name) {
    const buffer = await unpack(report.volumes[name]);
    const header = new DataView(buffer);
    const values = { 8: Uint8Array, 16: Int16Array, 32: Int32Array }[header.getInt16(72, true)]; // by the bits of a voxel
    const slope = header.getFloat32(112, true);
    const intercept = header.getFloat32(116, true);
    arrays[name] = { values: new values(buffer, HEADER_BYTES), slope, intercept };
    return buffer;
}

async function readAll() {
    const [fixed] = await Promise.all(["fixed", ...Object.keys(report.volumes).filter((n) => n !== "fixed")].map(readVolume));
    if (report.field) {
        field = { ...report.field, values: new Int16Array(await unpack(report.field.data)) };
        field.inverse = inverted(field.affine);
    }
    return fixed;
}

function offset(i, j, k) {
    return i + shape[0] * (j + shape[1] * k);
}

// what the second image's pane shows: bytes
function composed() {
    const fixed = arrays.fixed.values;
    const other = arrays[state.other].values;
    if (state.mode === "difference") {
        return other.map((value, n) => Math.min(Math.max(128 + value - fixed[n], 1), 255));
    }
    if (state.mode !== "checkerboard") {
        return other;
    }
    const side = Math.max(...shape.map((n, axis) => n * spacing[axis])) / TILES;
    const tile = shape.map((n, axis) => Array.from({ length: n }, (_, i) => Math.floor((i * spacing[axis]) / side)));
    const board = new Uint8Array(other.length);
    for (let k = 0, n = 0; k < shape[2]; k++) {
        for (let j = 0; j < shape[1]; j++) {
            for (let i = 0; i < shape[0]; i++, n++) {
                board[n] = (tile[0][i] + tile[1][j] + tile[2][k]) % 2 ? other[n] : fixed[n];
            }
        }
    }
    return board;
}

// ---- NiiVue

function colourMaps(viewer) {
    const indices = Array.from({ length: 256 }, (_, i) => i);
    const map = (colours, alpha) => ({
        R: colours.map((c) => c[0]), G: colours.map((c) => c[1]), B: colours.map((c) => c[2]), A: alpha, I: indices,
    });
    const change = (i) => Math.abs(i - 127.5) / 126.5;
    const clear = Math.log(1 + UNCHANGED) / Math.log(report.largest_jacobian);
    viewer.addColormap("signed", map(report.colours.signed, indices.map((i) => Math.round(255 * Math.min(1, change(i))))));
    viewer.addColormap("ratio", map(report.colours.ratio, indices.map((i) => (i === 0 || change(i) < clear ? 0 : 255))));
}

async function makeViewer(canvas, lines, buffer) {
    const viewer = new niivue.Niivue({
        backColor: [0, 0, 0, 1], crosshairColor: [0.2, 0.9, 0.9, 0.7], crosshairWidth: 0.25, crosshairWidthUnit: "percent", crosshairGap: 4,
        fontColor: [1, 1, 1, 1], fontMinPx: 16, isRadiologicalConvention: true, showAllOrientationMarkers: true,
        multiplanarLayout: niivue.MULTIPLANAR_TYPE.AUTO, multiplanarShowRender: niivue.SHOW_RENDER.NEVER,
        sliceType: niivue.SLICE_TYPE.MULTIPLANAR, multiplanarPadPixels: 4, isColorbar: false, isOrientCube: false, sagittalNoseLeft: true,
        clipPlaneHotKey: "", cycleClipPlaneHotKey: "", viewModeHotKey: "", dragAndDropEnabled: false, logLevel: "error",
        loadingText: "", show3Dcrosshair: true, renderOverlayBlend: 0,
    });
    await viewer.attachToCanvas(canvas, false);
    colourMaps(viewer);
    const bytes = () => {
        const copy = buffer.slice(0);
        new DataView(copy).setFloat32(112, 1, true);
        new DataView(copy).setFloat32(116, 0, true);
        return copy;
    };
    const image = await niivue.NVImage.new(bytes(), "image.nii", "gray", 1, null, 0, 255);
    const overlay = await niivue.NVImage.new(bytes(), "overlay.nii", "ratio", 0, null, 0, 255);
    [viewer.volumes, viewer.back, viewer.overlays] = [[image], image, []]; // drawn by the first update
    viewer.changes = overlay; // joins the volumes when it is first asked for
    const draw = viewer.drawScene.bind(viewer);
    viewer.drawScene = (...rest) => {
        if (!started) {
            return "";
        }
        const result = draw(...rest);
        drawLines(viewer, lines);
        return result;
    };
    return viewer;
}

// the Jacobian's levels, and 0, which is left clear, where both images are black: in the air it tells nothing
let changesShown = null;

function changes() {
    const [fixed, warped] = [arrays.fixed.values, arrays.warped.values];
    const shown = (level, n) => level === FOLDED || fixed[n] > BLACK || warped[n] > BLACK;
    changesShown ??= arrays.jacobian.values.map((level, n) => (shown(level, n) ? level : 0));
    return changesShown;
}

// bring a viewer up to date; the image itself is uploaded where it is another one than before
function show(viewer, key, compose, colours) {
    const [image] = viewer.volumes;
    const changed = viewer.shown !== key;
    if (changed) {
        image.img.set(compose());
        image.colormap = colours;
        viewer.shown = key;
    }
    const opacity = state.overlay === "jacobian" ? 0.6 : 0;
    const repainted = viewer.changes.opacity !== opacity;
    if (repainted) {
        viewer.changes.opacity = opacity;
        viewer.changes.img.set(changes());
        [viewer.volumes, viewer.overlays] = [[image, viewer.changes], [viewer.changes]];
    }
    if (changed) {
        viewer.updateGLVolume();
    } else {
        if (repainted) {
            viewer.refreshLayers(viewer.changes, 1);
        }
        viewer.drawScene();
    }
}

function link(viewer, other) {
    viewer.onLocationChange = () => {
        if (other.scene.crosshairPos.some((value, axis) => Math.abs(value - viewer.scene.crosshairPos[axis]) > 1e-6)) {
            other.scene.crosshairPos = Array.from(viewer.scene.crosshairPos);
            other.drawScene();
        }
        read(Array.from(viewer.scene.crosshairPos), "the crosshair");
        describe();
    };
}

// ---- lines over each plane: the grid as the field deforms it, the borders of labels

function drawLines(viewer, canvas) {
    const context = canvas.getContext("2d");
    if (canvas.width !== viewer.canvas.width || canvas.height !== viewer.canvas.height) {
        canvas.width = viewer.canvas.width;
        canvas.height = viewer.canvas.height;
    }
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.lineWidth = Math.max(1, window.devicePixelRatio);
    const drawn = { grid: drawGrid, contours: drawContours }[state.overlay];
    viewer.screenSlices.forEach((tile, index) => {
        if (drawn && tile.axCorSag <= 2) {
            const plane = planeOf(viewer, tile, index);
            context.save();
            context.beginPath();
            context.rect(...tile.leftTopWidthHeight);
            context.clip();
            drawn(context, plane);
            context.restore();
        }
    });
}

// one plane of the picture: its axes, the slice, and where voxels (three indices, fractions too) are on the canvas
function planeOf(viewer, tile, index) {
    const [l, t, w, h] = tile.leftTopWidthHeight;
    const [first, last] = [0.25, 0.75].map((part) => viewer.screenXY2TextureFrac(l + part * w, t + part * h, index, false));
    const normal = [2, 1, 0][tile.axCorSag];
    const [across, up] = [0, 1, 2].filter((axis) => axis !== normal);
    const part = (axis, at) => 0.25 + ((at + 0.5) / shape[axis] - first[axis]) / (last[axis] - first[axis]) / 2;
    const toCanvas = (voxel) => [l + w * part(across, voxel[across]), t + h * part(up, voxel[up])];
    return { across, up, normal, slice: viewer.scene.crosshairPos[normal] * shape[normal] - 0.5, toCanvas };
}

function gridStep() {
    return Math.max(1, Math.round(Math.max(...shape.map((n, axis) => n * spacing[axis])) / GRID_LINES));
}

function drawGrid(context, { across, up, normal, slice, toCanvas }) {
    if (!field) {
        return;
    }
    context.strokeStyle = `rgb(${GRID_COLOUR.join(",")})`;
    context.beginPath();
    for (const [along, other] of [[across, up], [up, across]]) {
        const lineStep = Math.max(1, Math.round(gridStep() / spacing[other]));
        for (let at = 0; at < shape[other]; at += lineStep) {
            for (let i = 0; i < shape[along]; i++) {
                const voxel = [0, 0, 0];
                [voxel[normal], voxel[other], voxel[along]] = [slice, at, i];
                const point = pointOf(voxel);
                const [x, y] = toCanvas(voxelOf(sum(point, fieldAt(point))));
                i ? context.lineTo(x, y) : context.moveTo(x, y);
            }
        }
    }
    context.stroke();
}

function drawContours(context, plane) {
    for (const [name, colour] of [["fixed", FIXED_COLOUR], [state.other, MOVED_COLOUR]]) {
        const labels = arrays[`${name}_label`];
        if (labels) {
            context.strokeStyle = `rgb(${colour.join(",")})`;
            drawBorders(context, plane, labels.values);
        }
    }
}

// an edge of every voxel that the next one along an axis of the plane has another label than
function drawBorders(context, { across, up, normal, slice, toCanvas }, labels) {
    const steps = [1, shape[0], shape[0] * shape[1]];
    const start = Math.min(Math.max(Math.round(slice), 0), shape[normal] - 1) * steps[normal];
    context.beginPath();
    for (const [along, other] of [[across, up], [up, across]]) {
        for (let i = 0; i + 1 < shape[along]; i++) {
            for (let j = 0; j < shape[other]; j++) {
                const n = start + i * steps[along] + j * steps[other];
                if (labels[n] !== labels[n + steps[along]]) {
                    const end = [0, 0, 0];
                    [end[along], end[other]] = [i + 0.5, j - 0.5];
                    context.moveTo(...toCanvas(end));
                    end[other] = j + 0.5;
                    context.lineTo(...toCanvas(end));
                }
            }
        }
    }
    context.stroke();
}

// ---- geometry: LPS, mm

function times(matrix, [x, y, z]) {
    return [0, 1, 2].map((row) => matrix[row][0] * x + matrix[row][1] * y + matrix[row][2] * z + matrix[row][3]);
}

function sum(a, b) {
    return a.map((value, axis) => value + b[axis]);
}

function inverted(matrix) {
    const [[a, b, c, x], [d, e, f, y], [g, h, i, z]] = matrix;
    const cofactors = [
        [e * i - f * h, c * h - b * i, b * f - c * e],
        [f * g - d * i, a * i - c * g, c * d - a * f],
        [d * h - e * g, b * g - a * h, a * e - b * d],
    ];
    const determinant = a * cofactors[0][0] + b * cofactors[1][0] + c * cofactors[2][0];
    const rows = cofactors.map((row) => row.map((value) => value / determinant));
    return rows.map((row) => [...row, -(row[0] * x + row[1] * y + row[2] * z)]);
}

const inverse = inverted(report.grid.affine);
const pointOf = (voxel) => times(report.grid.affine, voxel);
const voxelOf = (point) => times(inverse, point);

// u(p), mm, trilinear; zero beyond half a voxel around its lattice
function fieldAt(point) {
    const at = times(field.inverse, point);
    if (at.some((value, axis) => value < -0.5 || value > field.shape[axis] - 0.5)) {
        return [0, 0, 0];
    }
    const [rows, columns, slices] = field.shape;
    const base = at.map((value, axis) => Math.min(Math.max(Math.floor(value), 0), Math.max(field.shape[axis] - 2, 0)));
    const part = at.map((value, axis) => Math.min(Math.max(value - base[axis], 0), 1));
    const found = [0, 0, 0];
    for (let corner = 0; corner < 8; corner++) {
        const bits = [corner & 1, (corner >> 1) & 1, (corner >> 2) & 1];
        const weight = bits.reduce((all, bit, axis) => all * (bit ? part[axis] : 1 - part[axis]), 1);
        if (weight) {
            const [i, j, k] = base.map((value, axis) => value + bits[axis]);
            for (let c = 0; c < 3; c++) {
                found[c] += weight * field.values[((c * rows + i) * columns + j) * slices + k];
            }
        }
    }
    return found.map((value) => value * report.field_step_mm);
}

// T(p) - p of what is shown: nothing by the headers, A p - p aligned, A (p + u(p)) - p warped
function displacementAt(point) {
    if (state.other === "moving") {
        return [0, 0, 0];
    }
    const moved = state.other === "warped" && field ? sum(point, fieldAt(point)) : point;
    return times(report.alignment, moved).map((value, axis) => value - point[axis]);
}

// ---- readout

function read(fraction, where) {
    const exact = fraction.map((value, axis) => value * shape[axis] - 0.5);
    const voxel = exact.map((value, axis) => Math.min(Math.max(Math.round(value), 0), shape[axis] - 1));
    const n = offset(...voxel);
    const point = pointOf(exact);
    const moved = displacementAt(point);
    const mm = (vector) => vector.map((value) => value.toFixed(1).replace(/^-0\.0$/, "0.0")).join(", ");
    byId("where").textContent = where;
    byId("position").textContent = mm(point);
    byId("displacement").textContent = `${Math.hypot(...moved).toFixed(1)} mm (${mm(moved)})`;
    byId("other-name").textContent = state.other;
    byId("fixed-value").textContent = valueAt("fixed", n);
    byId("other-value").textContent = valueAt(state.other, n);
}

function valueAt(name, n) {
    const { values, slope, intercept } = arrays[name];
    const bound = values[n] === 0 ? "≤ " : values[n] === 255 ? "≥ " : "";
    const text = bound + Number((values[n] * slope + intercept).toPrecision(4));
    const labels = arrays[`${name}_label`];
    return labels ? `${text} (label ${report.labels[labels.values[n]]})` : text;
}

function readAtCrosshair() {
    read(Array.from(right.scene.crosshairPos), "the crosshair");
}

function followPointer(viewer) {
    viewer.canvas.addEventListener("pointermove", (event) => {
        const scale = viewer.canvas.width / viewer.canvas.clientWidth;
        const fraction = viewer.canvasPos2frac([event.offsetX * scale, event.offsetY * scale]);
        if (fraction[0] >= 0) {
            read(Array.from(fraction), "the pointer");
        }
    });
    viewer.canvas.addEventListener("pointerleave", readAtCrosshair);
}

// ---- words beside the picture

function describe() {
    const shown = { side: "", swipe: "", flicker: "", checkerboard: "tiles of fixed and ", difference: "difference to fixed: " };
    byId("left-caption").textContent = `fixed: ${report.names.fixed}`;
    byId("right-caption").textContent = `${shown[state.mode]}${TITLES[state.other]}: ${report.names.moving}`;
    const overlay = { none: "", grid: ", with the deformed grid", jacobian: ", with the Jacobian", contours: ", with label contours" };
    const at = byId("position").textContent;
    for (const [side, canvas] of [["left", left.canvas], ["right", right.canvas]]) {
        const planes = byId("rendering").checked ? "Three planes and a rendering" : "Three planes";
        const text = `${planes}: ${byId(`${side}-caption`).textContent}${overlay[state.overlay]}, at ${at} mm LPS`;
        canvas.setAttribute("aria-label", text);
    }
}

function tellLegend() {
    const legend = byId("legend");
    legend.replaceChildren();
    if (state.mode === "difference") {
        legend.append("Difference, part of the range of grays ", bar(report.colours.signed, ["−1/2", "", "0", "", "+1/2"]));
    }
    if (state.overlay === "jacobian") {
        const largest = report.largest_jacobian;
        const ticks = [`1/${largest}`, "1/2", "1", "2", String(largest)];
        legend.append("Jacobian of the field: volume in moving to volume in fixed ", bar(report.colours.ratio.slice(1, 255), ticks));
        legend.append(swatch(report.colours.ratio[255], "folded"), `clear: changes below ${100 * UNCHANGED} %, and what is black in both images`);
    }
    if (state.overlay === "contours") {
        const moved = `${state.other}_label` in arrays;
        legend.append("fixed_label" in arrays ? swatch(FIXED_COLOUR, "fixed") : "no label map of the fixed image was given");
        legend.append(moved ? swatch(MOVED_COLOUR, TITLES[state.other]) : "no label map of the moving image was given");
        if (moved && "fixed_label" in arrays) {
            legend.append(`${report.labels.length - 1} labels`);
        }
    }
    if (state.overlay === "grid") {
        legend.append(`Lines ${gridStep()} mm apart in the fixed image, drawn where the field takes them`);
    }
}

function swatch(colour, text) {
    const whole = element("span");
    const patch = element("span", "", "swatch");
    patch.style.background = `rgb(${colour.join(",")})`;
    whole.append(patch, text);
    return whole;
}

function bar(colours, ticks) {
    const whole = element("span", "", "bar");
    const canvas = document.createElement("canvas");
    canvas.width = colours.length;
    canvas.height = 1;
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `colour bar: ${ticks.filter(Boolean).join(", ")}`);
    const context = canvas.getContext("2d");
    colours.forEach((colour, i) => {
        context.fillStyle = `rgb(${colour.join(",")})`;
        context.fillRect(i, 0, 1, 1);
    });
    whole.append(canvas, ...ticks.map((tick) => element("span", tick)));
    return whole;
}

// ---- controls

function update() {
    byId("panes").dataset.mode = state.mode;
    byId("panes").dataset.front = state.mode === "flicker" ? state.front : "both";
    byId("panes").style.setProperty("--swipe", `${state.swipe}%`);
    byId("swipe-control").hidden = state.mode !== "swipe";
    byId("flicker-control").hidden = state.mode !== "flicker";
    for (const name of ["mode", "other", "overlay"]) {
        document.querySelector(`input[name="${name}"][value="${state[name]}"]`).checked = true;
    }
    const blended = state.mode === "checkerboard" || state.mode === "difference";
    show(left, "fixed", () => arrays.fixed.values, "gray");
    show(right, `${blended ? state.mode : ""} ${state.other}`, composed, state.mode === "difference" ? "signed" : "gray");
    tellLegend();
    readAtCrosshair();
    describe();
}

function choose(name, value) {
    const input = document.querySelector(`input[name="${name}"][value="${value}"]`);
    if (!input.disabled) {
        state[name] = value;
        state.front = "right";
        update();
    }
}

function setSwipe(value) {
    state.swipe = Math.min(Math.max(value, 0), 100);
    byId("swipe").value = state.swipe;
    byId("panes").style.setProperty("--swipe", `${state.swipe}%`);
}

function turnOver() {
    state.front = state.front === "left" ? "right" : "left";
    byId("panes").dataset.front = state.front;
}

function setRendering(on) {
    byId("rendering").checked = on;
    for (const viewer of [left, right]) {
        viewer.opts.multiplanarShowRender = on ? niivue.SHOW_RENDER.ALWAYS : niivue.SHOW_RENDER.NEVER;
        viewer.drawScene();
    }
    describe();
}

function setRadiological(on) {
    byId("radiological").checked = on;
    for (const viewer of [left, right]) {
        viewer.setRadiologicalConvention(on);
    }
}

// whether a control has a use of its own for a key: arrows choose among radios for whoever came there by keys
function belongsTo(control, key) {
    if (control.matches("input[type=radio]")) {
        return reachedByKeys && key.startsWith("Arrow");
    }
    return control.matches("input[type=range]") ? key in STEPS : control.matches("input[type=checkbox], summary") && key === " ";
}

function onKey(event) {
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (event.ctrlKey || event.altKey || event.metaKey || belongsTo(event.target, key)) {
        return;
    }
    const actions = {
        ...Object.fromEntries(Object.entries(MODE_KEYS).map(([k, v]) => [k, () => choose("mode", v)])),
        ...Object.fromEntries(Object.entries(OTHER_KEYS).map(([k, v]) => [k, () => choose("other", v)])),
        ...Object.fromEntries(Object.entries(OVERLAY_KEYS).map(([k, v]) => [k, () => choose("overlay", v)])),
        ...Object.fromEntries(Object.entries(STEPS).map(([k, v]) => [k, () => step(v)])),
        "<": () => setSwipe(state.swipe - 5),
        ">": () => setSwipe(state.swipe + 5),
        " ": () => state.mode === "flicker" && turnOver(),
        f: () => byId("flickering").click(),
        d: () => setRendering(!byId("rendering").checked),
        r: () => setRadiological(!byId("radiological").checked),
    };
    if (key in actions) {
        event.preventDefault();
        event.stopImmediatePropagation(); // NiiVue has keys of its own
        actions[key]();
    }
}

// a voxel further, the way the arrow points
function step([x, y, z]) {
    const mirrored = byId("radiological").checked ? 1 : -1;
    const steps = [-x * mirrored, y, z];
    place(Array.from(right.scene.crosshairPos, (value, axis) => value * shape[axis] - 0.5 + steps[axis]));
}

// put the crosshair of both images into the middle of the nearest voxel
function place(voxel) {
    right.scene.crosshairPos = voxel.map((value, axis) => (Math.min(Math.max(Math.round(value), 0), shape[axis] - 1) + 0.5) / shape[axis]);
    right.drawScene();
    right.createOnLocationChange();
}

function listen() {
    byId("controls").addEventListener("submit", (event) => event.preventDefault());
    byId("controls").addEventListener("focusin", (event) => {
        reachedByKeys = event.target.matches(":focus-visible"); // a key that is pressed later makes it visible, too
    });
    for (const name of ["mode", "other", "overlay"]) {
        for (const input of document.querySelectorAll(`input[name="${name}"]`)) {
            input.addEventListener("change", () => choose(name, input.value));
        }
    }
    byId("swipe").addEventListener("input", (event) => setSwipe(Number(event.target.value)));
    byId("rendering").addEventListener("change", (event) => setRendering(event.target.checked));
    byId("radiological").addEventListener("change", (event) => setRadiological(event.target.checked));
    window.addEventListener("keydown", onKey, true);
    setInterval(() => {
        if (state.mode === "flicker" && byId("flickering").checked) {
            turnOver();
        }
    }, FLICKER_MS);
    followPointer(left);
    followPointer(right);
}

// without a GPU a rendering takes a second, so it waits until it is asked for
function drawnByProcessor(gl) {
    const names = gl.getExtension("WEBGL_debug_renderer_info");
    return /swiftshader|llvmpipe|software|basic render/i.test(gl.getParameter(names?.UNMASKED_RENDERER_WEBGL ?? gl.RENDERER));
}

function disable(name, value, reason) {
    const input = document.querySelector(`input[name="${name}"][value="${value}"]`);
    input.disabled = true;
    input.parentElement.title = reason;
}

async function start() {
    tellNumbers();
    tellProvenance();
    if (!document.createElement("canvas").getContext("webgl2")) {
        throw new Error("This browser has no WebGL 2, which draws the images.");
    }
    const buffer = await readAll();
    left = await makeViewer(byId("left"), byId("left-lines"), buffer);
    right = await makeViewer(byId("right"), byId("right-lines"), buffer);
    link(left, right);
    link(right, left);
    if (!field) {
        disable("overlay", "grid", "There is no field: the transform is linear.");
        disable("overlay", "jacobian", "There is no field: the transform is linear.");
    }
    if (!Object.keys(arrays).some((name) => name.endsWith("_label"))) {
        disable("overlay", "contours", "No label maps were given.");
    }
    byId("flickering").checked = !window.matchMedia("(prefers-reduced-motion: reduce)").matches;
    listen();
    if (!drawnByProcessor(right.gl)) {
        setRendering(true);
    }
    update();
    started = true;
    left.drawScene();
    place(shape.map((n) => (n - 1) / 2));
    document.body.dataset.ready = Math.round(performance.now());
}

start().catch((error) => {
    byId("message").textContent = `${error.message} A picture of three planes of the images is among the files beside this page.`;
    byId("message").hidden = false;
    byId("viewer").hidden = true;
    document.body.dataset.ready = "failed";
});
