// what report.html calls of NiiVue, as the global `niivue`
export { MULTIPLANAR_TYPE, Niivue, NVImage, SHOW_RENDER, SLICE_TYPE } from "@niivue/niivue";
