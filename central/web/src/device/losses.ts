/** Causes of the loss ledger in an operator's words. */
export const LOSS_WORDS: Record<string, string> = {
  expired: "its time to live passed in the queue",
  evicted: "it gave way to newer ones: the queue was full",
  refused: "the queue was full and refused it",
  damaged: "it could not be read from the disk",
  dropped: "it was given up after too many refusals upstream",
};
