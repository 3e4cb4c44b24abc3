import { StrictMode } from 'react';
import { createRoot } from 'react-dom/client';

import { App } from './App';
import { parseLink } from './link';
import './styles.css';

const link = parseLink(window.location.href);
if (typeof link !== 'string') {
  // Neither the token nor the key stays where a shared screen, the history or a bookmark would show it.
  window.history.replaceState(null, '', window.location.pathname);
}

const root = document.getElementById('app');
if (root) {
  createRoot(root).render(
    <StrictMode>
      <App link={link} />
    </StrictMode>,
  );
}
