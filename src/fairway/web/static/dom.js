// Small things that every part of the page needs.

export const byId = (id) => document.getElementById(id);

/** Make an element: attributes, then children (text or elements). */
export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** Show words; commands and flags in them look like such. */
export function setWords(element, text) {
  const parts = text.split(/(\bfairway (?:up|web|serve|train)\b|(?<!\S)--[a-z-]+[a-z])/);
  element.replaceChildren(...parts.map((part, i) => (i % 2 ? el("code", {}, part) : part)));
}

/** Make a sentence of words that may stand after a colon elsewhere. */
export const sentence = (words) => words.charAt(0).toUpperCase() + words.slice(1) + (/[.?!]$/.test(words) ? "" : ".");

/** Write a share as a percentage; what is not all of it never reads as 100 %. */
export function percent(share, digits = 1) {
  const text = (100 * share).toFixed(digits);
  const whole = digits > 0 && share < 1 && Number(text) === 100;
  return `${whole ? `> ${(100 - 10 ** -digits).toFixed(digits)}` : text}\u00a0%`;
}

export const count = (number) => number.toLocaleString("en");
