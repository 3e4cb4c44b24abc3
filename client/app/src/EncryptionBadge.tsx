import type { EncryptionStatus } from './encryption';
import { Icon } from './Icon';

/** Says how one participant's media is protected. */
export function EncryptionBadge({ status }: { status: EncryptionStatus }) {
  return (
    <span className={`badge ${status.level}`} title={status.label}>
      <Icon name={status.level === 'encrypted' || status.level === 'waiting' ? 'lock' : 'unlock'} label={status.label} />
    </span>
  );
}
