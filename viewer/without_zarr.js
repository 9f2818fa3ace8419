// in zarrita's place: reading Zarr brings 1.4 MB of codecs along, and the report holds NIfTI alone
const absent = () => {
    throw new Error("This viewer reads no Zarr.");
};
export const FetchStore = absent;
export const get = absent;
export const open = absent;
export const root = absent;
export const slice = absent;
