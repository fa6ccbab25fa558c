// The page's words. Every key stands in both languages; a test holds them together.
export const WORDS = {
  en: {
    other: "Русский",
    docs: "API",
    drop: "Drop a recording here, or choose one",
    limit: "Audio or video, up to {size}",
    language: "Language",
    detect: "Detect",
    task: "Task",
    transcribe: "Transcribe",
    translate: "Translate to English",
    format: "Format",
    text: "Text",
    key: "API key",
    go: "Transcribe",
    sample: "Try the sample",
    stop: "Stop",
    copy: "Copy",
    copied: "Copied",
    save: "Download",
    uploading: "Uploading… {percent} %",
    listening: "Listening…",
    done: "{audio} s of audio in {took} s",
    silence: "No speech was found.",
    stopped: "Stopped.",
    lost: "The connection to the server broke.",
    loading: "The model is being loaded…",
    failed: "The model could not be loaded: {reason}",
    bundled:
      "The model at work is the small bundled one. It knows spoken numbers in English and " +
      "Russian and little more. For real speech start the server with a real model, for " +
      "example: make run MODEL=small",
    client: "For programs: OpenAI's clients work with this address.",
  },
  ru: {
    other: "English",
    docs: "API",
    drop: "Перетащите запись сюда или выберите файл",
    limit: "Аудио или видео, до {size}",
    language: "Язык",
    detect: "Определить",
    task: "Задача",
    transcribe: "Расшифровка",
    translate: "Перевод на английский",
    format: "Формат",
    text: "Текст",
    key: "Ключ API",
    go: "Расшифровать",
    sample: "Попробовать на примере",
    stop: "Остановить",
    copy: "Копировать",
    copied: "Скопировано",
    save: "Скачать",
    uploading: "Отправка… {percent} %",
    listening: "Слушаю…",
    done: "{audio} с звука за {took} с",
    silence: "Речь не найдена.",
    stopped: "Остановлено.",
    lost: "Связь с сервером прервалась.",
    loading: "Модель загружается…",
    failed: "Модель не удалось загрузить: {reason}",
    bundled:
      "Сейчас работает маленькая встроенная модель. Она знает числа на английском и русском " +
      "и почти ничего больше. Для настоящей речи запустите сервер с настоящей моделью, " +
      "например: make run MODEL=small",
    client: "Для программ: клиенты OpenAI работают с этим адресом.",
  },
};

let tongue = localStorage.getItem("tongue") ?? (navigator.language.startsWith("ru") ? "ru" : "en");

export function say(key, values = {}) {
  return WORDS[tongue][key].replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");
}

export function currentTongue() {
  return tongue;
}

export function switchTongue() {
  tongue = tongue === "en" ? "ru" : "en";
  localStorage.setItem("tongue", tongue);
}

export function paint(root) {
  document.documentElement.lang = tongue;
  for (const node of root.querySelectorAll("[data-i18n]")) {
    node.textContent = say(node.dataset.i18n);
  }
}
