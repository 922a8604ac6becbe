/** Pictures of the products, drawn. A name that nobody has drawn yet gets a parcel. */
import { Html } from './html';

interface Drawing {
  /** The ground that it stands on: hue of the upper and of the lower edge. */
  readonly hues: [number, number];
  readonly shape: string;
}

// All on a field of 120 × 120; `a` is the dark tone, `b` the light one, `c` the accent.
const DRAWINGS: Record<string, Drawing> = {
  mug: {
    hues: [18, 38],
    shape: `<path class="l" d="M80 56h8a12 12 0 0 1 0 24h-8"/><path class="b" d="M36 44h46v40a10 10 0 0 1-10 10H46a10 10 0 0 1-10-10z"/>
      <path class="c" d="M36 44h46v9H36z"/><path class="l t" d="M50 34q-5-6 0-12M62 34q-5-6 0-12"/>`,
  },
  basket: {
    hues: [32, 52],
    shape: `<path class="l" d="M38 58q22-44 44 0"/><path class="b" d="M28 56h64l-8 36a8 8 0 0 1-8 6H44a8 8 0 0 1-8-6z"/>
      <path class="l t" d="M31 68h58M34 80h52M46 56l5 42M60 56v42M74 56l-5 42"/>`,
  },
  blanket: {
    hues: [352, 18],
    shape: `<path class="b" d="M28 38h56a8 8 0 0 1 8 8v46H36a8 8 0 0 1-8-8z"/><path class="c" d="M28 54h64v7H28zM28 71h64v7H28z"/>
      <path class="l t" d="M36 92v8M48 92v8M60 92v8M72 92v8M84 92v8"/>`,
  },
  compass: {
    hues: [46, 28],
    shape: `<circle class="a" cx="60" cy="62" r="36"/><circle class="b" cx="60" cy="62" r="29"/>
      <path class="c" d="M60 38l8 24h-16z"/><path class="a" d="M60 86l8-24h-16z"/><circle class="b" cx="60" cy="62" r="3"/>
      <path class="l" d="M52 22h16"/>`,
  },
  lantern: {
    hues: [220, 262],
    shape: `<path class="l" d="M44 42q16-34 32 0"/><path class="a" d="M42 40h36v8H42zM40 90h40v9H40z"/>
      <path class="b" d="M45 48h30l5 42H40z"/><path class="c" d="M60 58q12 15 0 26q-12-11 0-26z"/>`,
  },
  paddle: {
    hues: [168, 196],
    shape: `<g transform="rotate(38 60 60)"><path class="a" d="M57 16h6v58h-6z"/><path class="c" d="M50 14h20v7H50z"/>
      <path class="b" d="M48 72q12-8 24 0v22q-12 22-24 0z"/></g>`,
  },
  jacket: {
    hues: [88, 140],
    shape: `<path class="b" d="M46 30h28l18 14-6 20-8-4v38H42V60l-8 4-6-20z"/><path class="c" d="M46 30q14 14 28 0l-4-6H50z"/>
      <path class="l t" d="M60 40v58M46 74h8M66 74h8"/>`,
  },
  notebook: {
    hues: [196, 218],
    shape: `<path class="a" d="M36 26h46a5 5 0 0 1 5 5v60a5 5 0 0 1-5 5H36z"/><path class="b" d="M42 32h38v58H42z"/>
      <path class="l t" d="M49 46h24M49 56h24M49 66h16"/><path class="c" d="M70 26h8v22l-4-5-4 5z"/>`,
  },
  flask: {
    hues: [204, 176],
    shape: `<path class="c" d="M49 20h22v16H49z"/><path class="b" d="M46 36h28v58a6 6 0 0 1-6 6H52a6 6 0 0 1-6-6z"/>
      <path class="a" d="M46 56h28v16H46z"/>`,
  },
  stool: {
    hues: [28, 12],
    shape: `<path class="l w" d="M44 52l-8 46M76 52l8 46M60 52v46"/><path class="b" d="M28 42h64v12H28z"/><path class="l t" d="M40 78h40"/>`,
  },
  candle: {
    hues: [48, 20],
    shape: `<path class="c" d="M60 18q13 17 0 28q-13-11 0-28z"/><path class="l t" d="M60 42v10"/><path class="b" d="M46 52h28v42H46z"/>
      <path class="a" d="M36 92h48v7H36z"/>`,
  },
  boots: {
    hues: [150, 96],
    shape: `<path class="b" d="M34 26h20v46h14a8 8 0 0 1 8 8v10H34z"/><path class="a" d="M34 90h42v8H34z"/><path class="c" d="M34 26h20v9H34z"/>
      <path class="b" d="M66 26h20v64h-8V78a8 8 0 0 0-8-8h-4z"/><path class="c" d="M66 26h20v9H66z"/><path class="a" d="M78 90h8v8h-8z"/>`,
  },
};

const PARCEL: Drawing = {
  hues: [210, 230],
  shape: `<path class="b" d="M30 44h60v50H30z"/><path class="c" d="M55 44h10v50H55z"/><path class="a" d="M26 34h68v12H26z"/>`,
};

/** Colours come from the style sheet: the hues say where on the wheel. */
export function art(picture: string): Html {
  const { hues, shape } = Object.hasOwn(DRAWINGS, picture) ? DRAWINGS[picture]! : PARCEL;
  const [from, to] = hues;
  return new Html(`<svg class="art" viewBox="0 0 120 120" aria-hidden="true">
    <linearGradient id="g${from}-${to}" x2="0" y2="1"><stop stop-color="hsl(${from} 62% 84%)"/><stop offset="1" stop-color="hsl(${to} 58% 70%)"/></linearGradient>
    <path fill="url(#g${from}-${to})" d="M0 0h120v120H0z"/><ellipse class="s" cx="60" cy="101" rx="34" ry="5"/>${shape}</svg>`);
}
