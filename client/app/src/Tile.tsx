import { isTrackReference, useConnectionQualityIndicator, useIsMuted, useIsSpeaking, VideoTrack } from '@livekit/components-react';
import type { TrackReferenceOrPlaceholder } from '@livekit/components-react';
import { Track } from 'livekit-client';

import type { CurtainE2EEManager } from '../../sdk';
import { connectionWords, usePaused } from './connection';
import { EncryptionBadge } from './EncryptionBadge';
import { useEncryptionStatus } from './encryption';
import { Icon } from './Icon';

interface Props {
  track: TrackReferenceOrPlaceholder;
  e2ee: CurtainE2EEManager | undefined;
}

/** One participant's camera or screen. */
export function Tile({ track, e2ee }: Props) {
  const { participant } = track;
  const screen = track.source === Track.Source.ScreenShare;
  const muted = useIsMuted({ participant, source: Track.Source.Microphone });
  const cameraOff = useIsMuted(track);
  const speaking = useIsSpeaking(participant);
  const paused = usePaused(track);
  const status = useEncryptionStatus(participant, e2ee);
  const name = `${participant.name || participant.identity}${participant.isLocal ? ' (you)' : ''}`;
  const shown = isTrackReference(track) && !cameraOff;

  return (
    <section
      className={`tile${speaking && !screen ? ' speaking' : ''}${screen ? ' screen' : ''}`}
      aria-label={screen ? `Screen of ${name}` : name}
      data-identity={participant.identity}
      data-encryption={status.level}
    >
      {shown ? (
        <VideoTrack trackRef={track} className={participant.isLocal && !screen ? 'mirrored' : undefined} />
      ) : (
        <div className="initials" aria-hidden="true">
          {initials(participant.name || participant.identity)}
        </div>
      )}
      {status.level === 'broken' && !participant.isLocal && (
        <p className="cannot" role="status">
          {status.label}
        </p>
      )}
      {shown && paused && (
        <p className="paused" role="status" data-testid="paused">
          Video paused: your connection is too slow for it
        </p>
      )}
      <footer>
        <EncryptionBadge status={status} />
        <span className="name">{screen ? `${name}: screen` : name}</span>
        {!screen && muted && <Icon name="mic-off" label="Microphone off" />}
        {!screen && <Quality participant={participant} />}
      </footer>
    </section>
  );
}

function Quality({ participant }: { participant: TrackReferenceOrPlaceholder['participant'] }) {
  const { quality } = useConnectionQualityIndicator({ participant });
  const words = connectionWords(quality);
  return (
    <>
      <span className={`quality ${words.level}`} role="img" aria-label={words.label} title={words.label}>
        <i />
        <i />
        <i />
      </span>
      {words.bad && (
        <span className="quality-word" aria-hidden="true">
          {words.label}
        </span>
      )}
    </>
  );
}

function initials(name: string): string {
  const words = name.trim().split(/\s+/);
  const first = [...(words[0] ?? '')][0] ?? '';
  const last = words.length > 1 ? ([...(words[words.length - 1] ?? '')][0] ?? '') : '';
  return (first + last).toUpperCase();
}
