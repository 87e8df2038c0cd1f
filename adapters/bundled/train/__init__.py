"""The program that makes the bundled model: data, tokenizer, training, evaluation."""
