import { useState } from "react";

export default function App() {
  const [count, setCount] = useState(0);

  return (
    <main>
      <h1>Vite and React</h1>
      <p>
        Edit <code>src/App.jsx</code> and save: the page changes, and the count stays.
      </p>
      <button type="button" onClick={() => setCount(count + 1)}>
        Count: {count}
      </button>
    </main>
  );
}
