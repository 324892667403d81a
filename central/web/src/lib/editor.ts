// The JSON editor of manifests and templates: CodeMirror 6 in a shadow root. There it puts its styles into adopted style sheets; in the
// document itself it would write a <style> element, which the page's Content-Security-Policy refuses.

import { closeBrackets, closeBracketsKeymap } from "@codemirror/autocomplete";
import { defaultKeymap, history, historyKeymap, indentWithTab } from "@codemirror/commands";
import { json, jsonParseLinter } from "@codemirror/lang-json";
import {
  bracketMatching,
  foldGutter,
  foldKeymap,
  HighlightStyle,
  indentOnInput,
  syntaxHighlighting,
} from "@codemirror/language";
import {
  type Diagnostic,
  forEachDiagnostic,
  linter,
  lintGutter,
  lintKeymap,
  nextDiagnostic,
  setDiagnostics,
} from "@codemirror/lint";
import { highlightSelectionMatches, search, searchKeymap } from "@codemirror/search";
import { EditorState } from "@codemirror/state";
import { drawSelection, EditorView, highlightActiveLine, keymap, lineNumbers } from "@codemirror/view";
import { tags } from "@lezer/highlight";

// Strings are not green here: green is OK.
const colours = HighlightStyle.define([
  { tag: tags.propertyName, color: "var(--c1)" },
  { tag: tags.string, color: "var(--c4)" },
  { tag: tags.number, color: "var(--c2)" },
  { tag: [tags.bool, tags.null], color: "var(--c3)" },
]);

const theme = EditorView.theme({
  "&": { height: "100%", fontSize: "12px", color: "var(--text-1)", backgroundColor: "var(--bg-1)" },
  ".cm-scroller": { fontFamily: "var(--mono)", lineHeight: "20px" },
  ".cm-gutters": {
    backgroundColor: "var(--bg-0)",
    color: "var(--text-3)",
    borderRight: "1px solid var(--line)",
  },
  ".cm-activeLine, .cm-activeLineGutter": { backgroundColor: "var(--bg-2)" },
  ".cm-content": { caretColor: "var(--text-1)" },
  ".cm-cursor": { borderLeftColor: "var(--text-1)" },
  "&.cm-focused": { outline: "2px solid var(--accent)", outlineOffset: "-2px" },
  "&.cm-focused .cm-selectionBackground, .cm-selectionBackground": {
    backgroundColor: "var(--bg-3) !important",
  },
  ".cm-panels, .cm-tooltip": {
    backgroundColor: "var(--bg-pop)",
    color: "var(--text-1)",
    border: "1px solid var(--line-2)",
  },
  ".cm-diagnostic": { fontFamily: "var(--font)", padding: "6px 10px", borderLeft: "0" },
  ".cm-lintRange-error": {
    backgroundImage: "none",
    textDecoration: "underline wavy var(--bad) 1px",
    textUnderlineOffset: "3px",
  },
  ".cm-lint-marker-error": {
    content: "none",
    width: "8px",
    height: "8px",
    borderRadius: "50%",
    backgroundColor: "var(--bad)",
    marginTop: "6px",
  },
  ".cm-foldPlaceholder": { backgroundColor: "var(--bg-2)", border: "0", color: "var(--text-3)" },
  ".cm-searchMatch": { backgroundColor: "var(--warn-bg)" },
  ".cm-matchingBracket": { backgroundColor: "var(--bg-3) !important" },
});

export type Editor = {
  text: () => string;
  setText: (text: string) => void;
  /** Marks places with central's words, and goes to the first of them unless told otherwise. */
  mark: (problems: Diagnostic[], isGoing?: boolean) => void;
  select: (from: number, to: number) => void;
  nextProblem: () => void;
  focus: () => void;
  destroy: () => void;
};

export function open(
  host: HTMLElement,
  text: string,
  isReadOnly: boolean,
  onChange: (text: string) => void,
  label = "The manifest as JSON",
): Editor {
  const root = host.shadowRoot ?? host.attachShadow({ mode: "open" });
  const view = new EditorView({
    root,
    parent: root,
    state: EditorState.create({
      doc: text,
      extensions: [
        lineNumbers(),
        foldGutter(),
        lintGutter(),
        history(),
        drawSelection(),
        indentOnInput(),
        bracketMatching(),
        closeBrackets(),
        highlightActiveLine(),
        highlightSelectionMatches(),
        search({ top: true }),
        json(),
        linter(jsonParseLinter(), { delay: 200 }),
        syntaxHighlighting(colours),
        theme,
        EditorState.readOnly.of(isReadOnly),
        EditorState.tabSize.of(2),
        EditorView.contentAttributes.of({ "aria-label": label }),
        EditorView.lineWrapping,
        keymap.of([
          ...closeBracketsKeymap,
          ...defaultKeymap,
          ...searchKeymap,
          ...historyKeymap,
          ...foldKeymap,
          ...lintKeymap,
          indentWithTab,
        ]),
        EditorView.updateListener.of((update) => {
          if (update.docChanged) onChange(update.state.doc.toString());
        }),
      ],
    }),
  });
  // It scrolls, so it takes the focus: arrows move it where nothing is written.
  view.scrollDOM.tabIndex = 0;
  return {
    text: () => view.state.doc.toString(),
    setText: (next) => view.dispatch({ changes: { from: 0, to: view.state.doc.length, insert: next } }),
    select: (from, to) =>
      view.dispatch({
        selection: { anchor: from, head: to },
        effects: EditorView.scrollIntoView(from, { y: "center" }),
      }),
    mark: (problems, isGoing = true) => {
      view.dispatch(setDiagnostics(view.state, problems));
      if (!isGoing) return;
      let first: number | null = null;
      forEachDiagnostic(view.state, (_diagnostic, from) => {
        first ??= from;
      });
      if (first !== null)
        view.dispatch({
          selection: { anchor: first },
          effects: EditorView.scrollIntoView(first, { y: "center" }),
        });
    },
    nextProblem: () => nextDiagnostic(view),
    focus: () => view.focus(),
    destroy: () => view.destroy(),
  };
}
