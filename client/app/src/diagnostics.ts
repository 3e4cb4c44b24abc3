import type { Room } from 'livekit-client';

import type { CurtainE2EEManager } from '../../sdk';

declare global {
  interface Window {
    /** For diagnosis and tests: the room of the visit, and the state of its encryption. Not an interface to build on. */
    curtain?: { room: Room; e2ee: CurtainE2EEManager | undefined };
  }
}

/** Makes the visit reachable from the browser's console. */
export function exposeForDiagnosis(room: Room, e2ee: CurtainE2EEManager | undefined): void {
  window.curtain = { room, e2ee };
}
