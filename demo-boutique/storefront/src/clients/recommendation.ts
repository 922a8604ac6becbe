import { boutiqueService, Dependency } from '@boutique/chassis';
import { Settings } from '../settings';

export class Recommendation {
  readonly #calls: Dependency;

  constructor({ recommendationAddr, channelsPerDependency, timeoutMs }: Settings) {
    this.#calls = new Dependency(
      boutiqueService('Recommendation'),
      recommendationAddr,
      channelsPerDependency,
      timeoutMs,
    );
  }

  /** Ids of products that go with these. */
  async list(userId: string, productIds: string[], trace: string | undefined): Promise<string[]> {
    const answer = await this.#calls.call<{ productIds: string[] }>('ListRecommendations', { userId, productIds }, trace);
    return answer.productIds;
  }

  close(): void {
    this.#calls.close();
  }
}
