"use strict";
/* What the components of the page call; each gets its element from Gradio. */
window.modelCompose = (() => {
    const copy = async (text) => {
        if (navigator.clipboard && window.isSecureContext) return navigator.clipboard.writeText(text);
        // Over plain HTTP from another machine the browser has no clipboard to offer.
        const focused = document.activeElement;
        const area = document.createElement("textarea");
        area.value = text;
        document.body.append(area);
        area.select();
        document.execCommand("copy");
        area.remove();
        focused?.focus();
    };

    const download = (text, name) => {
        const link = document.createElement("a");
        link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
        link.download = name;
        link.click();
        URL.revokeObjectURL(link.href);
    };

    const onAct = (element, act) =>
        element.addEventListener("click", (event) => {
            const button = event.target.closest("button[data-act]");
            if (!button || !element.contains(button)) return;
            if (button.dataset.act === "copy") {
                copy(button.dataset.copy);
                button.classList.add("did");
                setTimeout(() => button.classList.remove("did"), 1200);
            } else if (button.dataset.act === "download") download(button.dataset.copy, button.dataset.name);
            else act(button);
        });

    const edit = (article, trigger) => {
        const bubble = article.querySelector(".bubble");
        const area = document.createElement("textarea");
        area.className = "edit-area";
        area.value = bubble.textContent;
        area.setAttribute("aria-label", "Edit the message; Enter sends it, Escape leaves it as it is");
        const leave = () => {
            area.remove();
            article.classList.remove("is-edited");
            article.querySelector("[data-act=edit]").focus();
        };
        area.addEventListener("keydown", (event) => {
            if (event.key === "Escape") leave();
            if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
            event.preventDefault();
            const text = area.value.trim();
            leave();
            if (!text) return;
            document.querySelector("#message textarea").focus();
            trigger("act", { what: "edit", index: Number(article.dataset.index), text });
        });
        article.classList.add("is-edited");
        bubble.before(area);
        area.focus();
    };

    const thread = (element, trigger, watch) => {
        const opened = new Set();
        let atEnd = true;
        const scroller = element.closest("#thread") || element;
        const toEnd = () => { scroller.scrollTop = scroller.scrollHeight; };
        element.setAttribute("role", "log");
        element.setAttribute("aria-label", "Conversation");
        scroller.tabIndex = 0;
        scroller.addEventListener("scroll", () => {
            atEnd = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < 60;
        });
        // A new piece of text replaces what is shown, and what was unfolded has to stay so.
        element.addEventListener("toggle", (event) => {
            const key = event.target.dataset.key;
            if (key) event.target.open ? opened.add(key) : opened.delete(key);
        }, true);
        watch("value", () => {
            for (const details of element.querySelectorAll("details[data-key]")) details.open = opened.has(details.dataset.key);
            if (atEnd) toEnd();
        });
        toEnd();
        applyTheme();
        onAct(element, (button) => {
            const article = button.closest("article");
            if (button.dataset.act === "edit") edit(article, trigger);
            else trigger("act", { what: button.dataset.act, index: Number(article.dataset.index), text: "" });
            atEnd = true;
        });
    };

    // Gradio follows the system; whoever has chosen otherwise keeps what they chose.
    const applyTheme = () => {
        const chosen = localStorage.getItem("model-compose-theme");
        if (chosen) document.body.classList.toggle("dark", chosen === "dark");
    };

    // What is typed into a list is looked for in it, so it must not follow what was chosen before.
    document.addEventListener("focusin", (event) => {
        if (event.target.matches("input[role=combobox]")) event.target.select();
    });

    const isNarrow = () => window.matchMedia("(max-width: 900px)").matches;

    return {
        thread,
        copies: (element) => onAct(element, () => {}),
        switches: (element, trigger) =>
            onAct(element, (button) => trigger("act", { what: button.dataset.act, model: button.dataset.model })),
        toggleSettings: () => {
            const panel = document.querySelector("#settings");
            panel.classList.toggle(isNarrow() ? "is-shown" : "is-hidden");
        },
        toggleDark: () => {
            const isDark = document.body.classList.toggle("dark");
            localStorage.setItem("model-compose-theme", isDark ? "dark" : "light");
        },
    };
})();
