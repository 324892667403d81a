import { mount } from "svelte";
import App from "./App.svelte";
import "./style/tokens.css";
import "./style/base.css";
import "./style/shell.css";
import "./style/table.css";
import "./style/pages.css";
import "./style/chart.css";
import "./style/gate.css";
import "./style/parts.css";
import "./style/small.css";

const target = document.getElementById("app");
if (target) mount(App, { target });
