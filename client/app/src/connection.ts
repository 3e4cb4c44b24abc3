import { useCallback, useSyncExternalStore } from 'react';
import type { TrackReferenceOrPlaceholder } from '@livekit/components-react';
import { ConnectionQuality, ParticipantEvent, Track } from 'livekit-client';

/** How well a participant is connected, as the page says it. */
export interface ConnectionWords {
  level: 'good' | 'fair' | 'poor' | 'lost' | 'unknown';
  label: string;
  /** A picture may suffer: the word is shown, not the bars alone. */
  bad: boolean;
}

const WORDS: Record<ConnectionQuality, ConnectionWords> = {
  [ConnectionQuality.Excellent]: { level: 'good', label: 'Connection: good', bad: false },
  [ConnectionQuality.Good]: { level: 'fair', label: 'Connection: fair', bad: false },
  [ConnectionQuality.Poor]: { level: 'poor', label: 'Connection: poor', bad: true },
  [ConnectionQuality.Lost]: { level: 'lost', label: 'Connection: lost', bad: true },
  [ConnectionQuality.Unknown]: { level: 'unknown', label: 'Connection: not known yet', bad: false },
};

/** Words for a connection quality; servers may know more of them than this page. */
export function connectionWords(quality: ConnectionQuality): ConnectionWords {
  return WORDS[quality] ?? WORDS[ConnectionQuality.Unknown];
}

/** The relay holds this track back because this page's connection does not carry it. */
export function isPaused(track: Pick<TrackReferenceOrPlaceholder, 'publication'>): boolean {
  return track.publication?.track?.streamState === Track.StreamState.Paused;
}

/** The same, followed. */
export function usePaused(track: TrackReferenceOrPlaceholder): boolean {
  const { participant } = track;
  const subscribe = useCallback(
    (changed: () => void) => {
      participant.on(ParticipantEvent.TrackStreamStateChanged, changed);
      return () => {
        participant.off(ParticipantEvent.TrackStreamStateChanged, changed);
      };
    },
    [participant],
  );
  return useSyncExternalStore(subscribe, () => isPaused(track));
}
