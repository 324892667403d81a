// The site at a glance, as central gives it.

import { get } from "./api";
import type { OverviewAnswer } from "./types";

export function overview(signal?: AbortSignal): Promise<OverviewAnswer> {
  return get<OverviewAnswer>("/api/ext/overview", {}, signal);
}
