import { useEffect, useReducer } from 'react';
import type { Participant } from 'livekit-client';
import { ParticipantEvent } from 'livekit-client';

import { describeDrop } from '../../sdk';
import type { CurtainE2EEManager, TrackCipherState } from '../../sdk';

/** What the indicator says about one participant. */
export interface EncryptionStatus {
  level: 'encrypted' | 'waiting' | 'broken' | 'off';
  label: string;
}

/** One track, as the indicator sees it. */
export interface TrackFacts {
  /** Its publisher declared it encrypted. */
  declared: boolean;
  /** What the cryptor saw of its frames; `undefined` while it is not received. */
  cipher: TrackCipherState | undefined;
}

/**
 * The truth about a participant's media. "Encrypted" needs frames that did authenticate on this device (or, for
 * oneself, that were encrypted); what a publisher or the server declares can only make it worse.
 */
export function encryptionStatus(active: boolean, tracks: TrackFacts[], local = false): EncryptionStatus {
  if (!active) {
    return { level: 'off', label: 'Not end-to-end encrypted' };
  }
  const failing = tracks.find(({ cipher }) => cipher?.passing === false);
  if (failing) {
    return {
      level: 'broken',
      label:
        failing.cipher?.reason === 'not-encrypted'
          ? 'Not encrypted, not shown'
          : `Cannot decrypt. ${describeDrop(failing.cipher?.reason)}`,
    };
  }
  if (tracks.some(({ declared }) => !declared)) {
    return { level: 'broken', label: 'Not encrypted, not shown' };
  }
  if (tracks.some(({ cipher }) => cipher?.passing === true)) {
    return { level: 'encrypted', label: 'End-to-end encrypted' };
  }
  return { level: 'waiting', label: local ? 'Nothing sent yet' : 'Nothing to decrypt yet' };
}

/** Follows {@link encryptionStatus} of a participant. */
export function useEncryptionStatus(
  participant: Participant,
  e2ee: CurtainE2EEManager | undefined,
): EncryptionStatus {
  const [, update] = useReducer((count: number) => count + 1, 0);
  useEffect(() => {
    const stop = e2ee?.onStatesChanged(update);
    const events = [
      ParticipantEvent.TrackPublished,
      ParticipantEvent.TrackUnpublished,
      ParticipantEvent.LocalTrackPublished,
      ParticipantEvent.LocalTrackUnpublished,
      ParticipantEvent.TrackSubscribed,
      ParticipantEvent.TrackUnsubscribed,
    ] as const;
    events.forEach((event) => participant.on(event, update));
    return () => {
      stop?.();
      events.forEach((event) => participant.off(event, update));
    };
  }, [participant, e2ee]);

  const states = e2ee?.statesOf(participant.identity);
  const tracks = [...participant.trackPublications.values()].map((publication) => ({
    declared: publication.isEncrypted,
    cipher: states?.get(publication.trackSid),
  }));
  return encryptionStatus(e2ee !== undefined && (!participant.isLocal || e2ee.isEnabled), tracks, participant.isLocal);
}
