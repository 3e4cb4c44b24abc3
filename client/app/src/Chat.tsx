import { useCallback, useEffect, useRef, useState } from 'react';
import { Encryption_Type } from 'livekit-client';

import type { Visit } from '../../sdk';
import { Icon } from './Icon';

/** The topic that LiveKit's own chat components use, so that their clients and this page understand each other. */
const TOPIC = 'lk.chat';
const MAX_MESSAGES = 500;
const MAX_LENGTH = 4000;

interface Message {
  id: string;
  from: string;
  mine: boolean;
  text: string;
  at: number;
}

export interface ChatState {
  messages: Message[];
  unread: number;
  /** Messages that came unencrypted into an encrypted visit and are not shown. */
  refused: number;
  send: (text: string) => Promise<void>;
}

/** Keeps the visit's messages while it lasts; they are stored nowhere. */
export function useChatMessages(visit: Visit, open: boolean): ChatState {
  const { room } = visit;
  const [messages, setMessages] = useState<Message[]>([]);
  const [seen, setSeen] = useState(0);
  const [refused, setRefused] = useState(0);
  const received = messages.filter(({ mine }) => !mine).length;

  const add = useCallback(
    (message: Message) => setMessages((all) => [...all, message].slice(-MAX_MESSAGES)),
    [],
  );

  useEffect(() => {
    room.registerTextStreamHandler(TOPIC, (reader, { identity }) => {
      if (visit.e2ee && reader.info.encryptionType === Encryption_Type.NONE) {
        setRefused((count) => count + 1);
        return;
      }
      reader
        .readAll()
        .then((text) =>
          add({
            id: reader.info.id,
            from: room.getParticipantByIdentity(identity)?.name || identity,
            mine: false,
            text: text.slice(0, MAX_LENGTH),
            at: reader.info.timestamp,
          }),
        )
        // A stream that breaks off has no message.
        .catch(() => undefined);
    });
    return () => room.unregisterTextStreamHandler(TOPIC);
  }, [room, visit, add]);

  const [wasOpen, setWasOpen] = useState(open);
  if (open !== wasOpen || (open && seen !== received)) {
    setWasOpen(open);
    setSeen(received);
  }

  const send = useCallback(
    async (text: string) => {
      const info = await room.localParticipant.sendText(text, { topic: TOPIC });
      add({ id: info.id, from: 'You', mine: true, text, at: info.timestamp });
    },
    [room, add],
  );
  return { messages, unread: open ? 0 : Math.max(0, received - seen), refused, send };
}

export function Chat({ chat, encrypted, onClose }: { chat: ChatState; encrypted: boolean; onClose: () => void }) {
  const [text, setText] = useState('');
  const [failed, setFailed] = useState(false);
  const end = useRef<HTMLDivElement>(null);
  const field = useRef<HTMLInputElement>(null);

  useEffect(() => {
    field.current?.focus();
  }, []);
  useEffect(() => {
    // Newer browsers return a promise here, which React would take for the effect's clean-up.
    void end.current?.scrollIntoView({ block: 'nearest' });
  }, [chat.messages.length]);

  const submit = async () => {
    const message = text.trim();
    if (message === '') {
      return;
    }
    try {
      await chat.send(message);
      setText('');
      setFailed(false);
    } catch {
      setFailed(true);
    }
  };

  return (
    <aside className="panel" aria-label="Messages">
      <header>
        <h2>Messages</h2>
        <button type="button" className="quiet" onClick={onClose} aria-label="Close messages">
          <Icon name="close" />
        </button>
      </header>
      <p className="hint">
        {encrypted ? 'Messages are end-to-end encrypted.' : 'Messages are not end-to-end encrypted.'} They are gone when
        you leave.
      </p>
      {chat.refused > 0 && (
        <p className="problem">
          {chat.refused === 1 ? 'One message was' : `${chat.refused} messages were`} not encrypted and not shown.
        </p>
      )}
      <div className="messages" role="log" aria-live="polite" aria-label="Message history">
        {chat.messages.map((message) => (
          <p key={message.id} className={message.mine ? 'message mine' : 'message'}>
            <strong>{message.from}</strong>
            <time dateTime={new Date(message.at).toISOString()}>
              {new Date(message.at).toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' })}
            </time>
            <span>{message.text}</span>
          </p>
        ))}
        <div ref={end} />
      </div>
      {failed && (
        <p className="problem" role="alert">
          The message was not sent. Try again.
        </p>
      )}
      <form
        onSubmit={(event) => {
          event.preventDefault();
          void submit();
        }}
      >
        <input
          ref={field}
          aria-label="Message"
          placeholder="Write a message"
          value={text}
          maxLength={MAX_LENGTH}
          onChange={(event) => setText(event.target.value)}
        />
        <button type="submit" className="primary" aria-label="Send">
          <Icon name="send" />
        </button>
      </form>
    </aside>
  );
}
