import { boutiqueService } from '@boutique/chassis';
import { Dependency } from '@boutique/chassis';
import { Settings } from '../settings';

export interface Ad {
  readonly redirectUrl: string;
  readonly text: string;
}

export class Ads {
  readonly #calls: Dependency;

  constructor({ adsAddr, channelsPerDependency, timeoutMs }: Settings) {
    this.#calls = new Dependency(boutiqueService('Ads'), adsAddr, channelsPerDependency, timeoutMs);
  }

  /** Those that go with what the visitor looks at. */
  async get(contextKeys: readonly string[], trace: string | undefined): Promise<Ad[]> {
    return (await this.#calls.call<{ ads: Ad[] }>('GetAds', { contextKeys }, trace)).ads;
  }

  close(): void {
    this.#calls.close();
  }
}
