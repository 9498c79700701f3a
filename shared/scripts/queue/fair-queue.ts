/** Cost of a job in its queue, and its owner's weight. */
export interface Share {
  rows: number;
  bytes: number;
  /** 0 first, then 1 to 1000, among its owner's jobs. */
  rank: number;
  weight: number;
  owner: string;
}

/** A share in the form read by the steps. */
export const shareText = ({ bytes, owner, rank, rows, weight }: Share): string =>
  `${rows} ${bytes} ${rank} ${weight} ${owner}`;
