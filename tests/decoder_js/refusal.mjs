/** What is refused, and the rule of the document that says so. */
export class Refusal extends Error {
  constructor(rule, why) {
    super(`${rule}: ${why}`);
    this.name = "Refusal";
    this.rule = rule;
  }
}
