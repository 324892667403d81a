// Operations on many devices, as central tells how far they are: asked for while one runs, and when the panel is open.

import { get, post } from "./api";
import { csvField } from "./csv";
import { download } from "./files";
import type { ImportPreview, Operation, OperationDetail } from "./types";

/** Between two questions while something runs. */
const POLL_MS = 500;

export type ImportFile = { csv: string; fileName: string; template: string };

const bodyOf = (file: ImportFile) => ({
  csv: file.csv,
  fileName: file.fileName,
  ...(file.template ? { template: file.template } : {}),
});

export const previewImport = (file: ImportFile) =>
  post<ImportPreview>("/api/ext/devices/import/preview", bodyOf(file));

class Operations {
  all = $state.raw<Operation[] | null>(null);
  error = $state.raw<unknown>(null);
  isOpen = $state(false);
  #timer: ReturnType<typeof setTimeout> | undefined;

  get running(): number {
    return this.all?.filter((one) => one.state === "running").length ?? 0;
  }

  /** Begins an import, and opens the panel that shows how far it is. */
  async begin(file: ImportFile): Promise<void> {
    await post("/api/ext/devices/import", bodyOf(file));
    this.open();
  }

  open(): void {
    this.isOpen = true;
    void this.ask();
  }

  async ask(): Promise<void> {
    clearTimeout(this.#timer);
    try {
      this.all = (await get<{ value: Operation[] }>("/api/ext/operations")).value;
      this.error = null;
    } catch (caught) {
      this.error = caught;
    }
    if (this.running > 0) this.#timer = setTimeout(() => void this.ask(), POLL_MS);
  }

  stop(): void {
    clearTimeout(this.#timer);
  }
}

export const operations = new Operations();

/** What could not be done, as a file: mended, its lines can be imported again. */
export function faultsFile(faults: OperationDetail["faults"]): string {
  const lines = faults.map((fault) => [fault.line, fault.device ?? "", fault.why]);
  const rows = [["line", "IOTC_DEVICEID", "error"], ...lines];
  return `\u{feff}${rows.map((row) => row.map(csvField).join(",")).join("\r\n")}\r\n`;
}

export async function downloadFaults(operation: Operation): Promise<void> {
  const { faults } = await get<OperationDetail>(`/api/ext/operations/${operation.id}`);
  download(`${operation.title.replace(/\.csv$/i, "")}-errors.csv`, faultsFile(faults), "text/csv");
}

/** The text of a file, which must be UTF-8, or UTF-16 with a byte order mark as spreadsheets save it. */
export async function textOf(file: Blob): Promise<string> {
  const bytes = new Uint8Array(await file.arrayBuffer());
  const encoding = bytes[0] === 0xff && bytes[1] === 0xfe ? "utf-16le" : "utf-8";
  try {
    return new TextDecoder(encoding, { fatal: true }).decode(bytes);
  } catch {
    throw new Error("The file is not UTF-8. Save it as “CSV UTF-8” and choose it again.");
  }
}

/** Writes all devices of a template, or all, into a file of the browser's. Gives how many. */
export async function exportDevices(keys: boolean, template: string | null): Promise<number> {
  const parts: string[] = [];
  let count = 0;
  let after: string | null = null;
  do {
    const part: { csv: string; devices: number; next: string | null } = await post(
      "/api/ext/devices/export",
      {
        keys,
        ...(template === null ? {} : { template }),
        ...(after === null ? {} : { after }),
      },
    );
    parts.push(part.csv);
    count += part.devices;
    after = part.next;
  } while (after !== null);
  download("devices.csv", parts.join(""), "text/csv");
  return count;
}
