export { CurtainE2EEManager, canEncrypt, describeDrop } from './e2ee/manager.js';
export type { TrackCipherState } from './e2ee/manager.js';
export { deriveSharedKey } from './e2ee/keys.js';
export { explainDeviceError, explainJoinError, prepareVisit, readToken } from './session.js';
export type { TokenFacts, Visit, VisitOptions } from './session.js';
