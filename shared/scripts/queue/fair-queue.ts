/** What a job weighs among those of its queue; the weight is its owner's. */
export interface Share {
  rows: number;
  bytes: number;
  /** 0 first, then 1 to 1000, among its owner's. */
  rank: number;
  weight: number;
  owner: string;
}

/** A share as the steps read it. */
export const shareText = ({ bytes, owner, rank, rows, weight }: Share): string =>
  `${rows} ${bytes} ${rank} ${weight} ${owner}`;
