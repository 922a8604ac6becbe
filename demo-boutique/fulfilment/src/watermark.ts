/** Up to where everything is done, when work ends in another order than it began. */
export class Watermark {
  /** Of each that began and before which something is open: its seq, and whether it is done. */
  readonly #begun: { readonly seq: number; done: boolean }[] = [];

  /** Seqs begin in ascending order. */
  begin(seq: number): void {
    this.#begun.push({ seq, done: false });
  }

  /** The highest seq up to which all are done now, if this one made a difference. */
  finish(seq: number): number | undefined {
    const entry = this.#begun.find((each) => each.seq === seq);
    if (entry) entry.done = true;
    let reached: number | undefined;
    while (this.#begun[0]?.done) reached = this.#begun.shift()!.seq;
    return reached;
  }
}
