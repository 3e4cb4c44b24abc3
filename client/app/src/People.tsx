import { useConnectionQualityIndicator, useIsMuted, useParticipants } from '@livekit/components-react';
import type { Participant } from 'livekit-client';
import { Track } from 'livekit-client';

import type { CurtainE2EEManager, Visit } from '../../sdk';
import { connectionWords } from './connection';
import { EncryptionBadge } from './EncryptionBadge';
import { useEncryptionStatus } from './encryption';
import { Icon } from './Icon';

export function People({ visit, onClose }: { visit: Visit; onClose: () => void }) {
  const participants = useParticipants();
  return (
    <aside className="panel" aria-label="People">
      <header>
        <h2>People ({participants.length})</h2>
        <button type="button" className="quiet" onClick={onClose} aria-label="Close list of people">
          <Icon name="close" />
        </button>
      </header>
      <ul className="people">
        {participants.map((participant) => (
          <Person key={participant.identity} participant={participant} e2ee={visit.e2ee} />
        ))}
      </ul>
    </aside>
  );
}

function Person({ participant, e2ee }: { participant: Participant; e2ee: CurtainE2EEManager | undefined }) {
  const microphoneOff = useIsMuted({ participant, source: Track.Source.Microphone });
  const cameraOff = useIsMuted({ participant, source: Track.Source.Camera });
  const { quality } = useConnectionQualityIndicator({ participant });
  const status = useEncryptionStatus(participant, e2ee);
  return (
    <li>
      <EncryptionBadge status={status} />
      <span className="name">
        {participant.name || participant.identity}
        {participant.isLocal && ' (you)'}
        <small>{status.label}</small>
        <small>{connectionWords(quality).label}</small>
      </span>
      <Icon name={microphoneOff ? 'mic-off' : 'mic'} label={microphoneOff ? 'Microphone off' : 'Microphone on'} />
      <Icon name={cameraOff ? 'camera-off' : 'camera'} label={cameraOff ? 'Camera off' : 'Camera on'} />
    </li>
  );
}
