"""What models, and what stands in a language's place, are called: in steps, records, documents and tables alike."""

BASE = "base"
OWN = "adapter/<language>"  # each language's own adapter, where a comparison is over languages
COMBINED = "adapter/combined"  # one adapter, trained on everything
CONTINUED = "adapter/continued"  # the combined one, trained on with the new rows alone
ROUTED = "routed"  # a language detector picks the own adapter
TRANSLATED = "translate-test"  # the question is translated, and one language's own adapter answers
MACRO = "macro"  # in a language's place: the mean over languages
UNSEEN = "unseen"  # in a split's place: test rows of languages without an adapter
STRESS = ("short", "code-switched", "mislabelled")  # likewise: test sets made of test rows
ENCODED = "bertscore_f1"  # the metric that needs an encoder
