"use strict";
// The table of a batch: a row a pair, as the file's writer ordered them (the worst first) until a heading is chosen.

const entries = JSON.parse(document.getElementById("data").textContent).map((entry, order) => ({ ...entry, order }));
const COLUMNS = [
    ["", null],
    ["pair", "pair"],
    ["verdict", "order"],
    ["likeness before", "similarity_before"],
    ["likeness after", "similarity_after"],
    ["structures match", "foreground_similarity"],
    ["Dice after", "dice_after"],
    ["folded, %", "folding_percent"],
    ["why", "words"],
];
const sorting = { key: "order", direction: 1 };

function cell(tag, content, className = "") {
    const made = document.createElement(tag);
    made.className = className;
    made.append(content);
    return made;
}

function picture(entry) {
    if (!entry.picture) {
        return "";
    }
    const image = document.createElement("img");
    image.src = entry.picture;
    image.loading = "lazy";
    image.alt = `middle axial plane of ${entry.pair}, tiles of fixed and warped`;
    return image;
}

function name(entry) {
    if (!entry.report) {
        return entry.pair;
    }
    const link = document.createElement("a");
    link.href = entry.report;
    link.append(entry.pair);
    return link;
}

function row(entry) {
    const made = document.createElement("tr");
    const mark = cell("span", entry.level, `mark ${entry.level.replace(" ", "-")}`);
    const head = cell("th", name(entry));
    head.scope = "row";
    made.append(cell("td", picture(entry)), head, cell("td", mark));
    for (const [, key] of COLUMNS.slice(3, -1)) {
        made.append(cell("td", typeof entry[key] === "number" ? entry[key].toFixed(3) : "", "number"));
    }
    made.append(cell("td", entry.words));
    return made;
}

// what is missing comes last, whichever way the rest is sorted
function compare(a, b) {
    const [x, y] = [a[sorting.key] ?? null, b[sorting.key] ?? null];
    if (x === null || y === null) {
        return (x === null) - (y === null);
    }
    return sorting.direction * (typeof x === "string" ? x.localeCompare(y, undefined, { numeric: true }) : x - y);
}

function fill() {
    const table = document.getElementById("pairs");
    table.tBodies[0].replaceChildren(...[...entries].sort(compare).map(row));
    COLUMNS.forEach(([, key], n) => {
        const state = key === sorting.key ? (sorting.direction > 0 ? "ascending" : "descending") : "none";
        table.tHead.rows[0].cells[n].setAttribute("aria-sort", state);
    });
}

for (const [title, key] of COLUMNS) {
    const head = cell("th", "");
    head.scope = "col";
    if (key) {
        const button = cell("button", title);
        button.addEventListener("click", () => {
            sorting.direction = sorting.key === key ? -sorting.direction : 1;
            sorting.key = key;
            fill();
        });
        head.append(button);
    } else {
        head.append("picture");
    }
    document.getElementById("pairs").tHead.rows[0].append(head);
}
fill();
