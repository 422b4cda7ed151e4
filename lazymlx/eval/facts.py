"""Sentences that hold a fact `{v}` about a name `{a}`, with their questions: what is hidden in long texts."""

FACTS = (
    ("The access code for the {a} project is {v}.", "What is the access code for the {a} project?"),
    ("According to the register, the keeper of {a} was {v}.", "Who or what was the keeper of {a}?"),
    ("The special magic number for {a} is: {v}.", "What is the special magic number for {a}?"),
    ("The shipment bound for {a} carries the label {v}.", "Which label does the shipment bound for {a} carry?"),
    ("One of the secret phrases of {a} is {v}.", "What is the secret phrase of {a}?"),
    ("Captain {a} was born in the town of {v}.", "In which town was Captain {a} born?"),
    ("The meeting with {a} takes place in {v}.", "Where does the meeting with {a} take place?"),
)
