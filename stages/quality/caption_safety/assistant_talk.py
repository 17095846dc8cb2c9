"""Captions that speak to a model, or in its voice: jailbreaks, orders to a rater, chat markup, instructions, refusals.

A vision-language model trained on them learns to answer them. The patterns are English, made from how such texts are
put rather than from a list of known ones; an imperative needs its object (`describe this image`), since alone it is the
title of many a page. `Ignore all previous instructions` is known in German, French, Spanish and Chinese as well.
"""

import re

WORD = r"\w{1,20}"
JAILBREAK = rf"""(?:ignore|disregard|forget|override|bypass)(?: {WORD}){{0,3}}
     (?:previous|prior|above|earlier|preceding|system|your|all)(?: {WORD}){{0,2}}
     (?:instructions?|prompts?|rules|guidelines|directives|restrictions|programming|training|safeguards)\b
    |(?:ignore|disregard|forget)(?: {WORD})? (?:instructions?|prompts?|rules|text) (?:above|before)\b
    |(?:ignore|disregard|forget)(?: all| everything)?(?: of)?(?: the)? (?:above|preceding|foregoing)
    (?=$|[.,;:!]| (?:and|then|answer|reply|respond|output|say|rate|give|score)\b)
    |(?:ignore|disregard|forget) (?:the|this|that|your|any|all)(?: {WORD})? (?:questions?|criteria|rubric|scale)\b
    |(?:ignore|disregard|forget) everything (?:above|before|you (?:were|have been|are) told)\b
    |(?:reveal|print|repeat|show|output|leak|display)(?: me)? (?:your|the)(?: {WORD})?
     (?:system|hidden|initial|secret|original) (?:prompt|instructions|message)\b
    |(?:new|updated|begin|end of) (?:system )?(?:instructions?|prompt) ?:|system prompt ?:|do anything now\b
    |you are (?:now |no longer )(?:dan|in developer mode|jailbroken|bound by|restricted
    |an? (?:ai|unrestricted|unfiltered|uncensored))\b
    |(?:pretend|imagine)(?: that)? you(?:'re| are) (?:an? )?(?:ai|unrestricted|unfiltered|uncensored|evil)\b
    |act as (?:an? )?(?:dan|unrestricted|unfiltered|uncensored|evil|jailbroken)\b
    |without (?:any )?(?:ethical|moral|safety|content|legal)
     (?:restrictions|guidelines|filters|limitations|constraints|policies)\b
    |(?:respond|answer|reply)(?: {WORD}){{0,3}} (?:unfiltered|uncensored|without (?:any )?filters?)\b"""
JAILBREAK_ABROAD = rf"""(?:ignorieren? sie|ignoriere?|vergiss|vergessen sie|missachten? sie|missachte)(?: {WORD}){{0,2}}
     (?:alle[rn]?|vorherigen?|bisherigen?|obigen?|vorigen?|fruheren?|vorangegangenen?)(?: {WORD}){{0,2}}
     (?:anweisung(?:en)?|instruktionen|befehle|regeln|vorgaben|prompts?)\b
    |(?:ignore[zr]?|oublie[zr]?)(?: {WORD}){{0,3}} (?:instructions?|consignes?|ordres?|regles?)(?: {WORD}){{0,2}}
     (?:precedente?s?|anterieure?s?|ci-dessus)\b
    |(?:ignor(?:a|e|en|ar)|olvid(?:a|e|en|ar))(?: {WORD}){{0,3}} (?:instrucciones|indicaciones|ordenes|reglas)
    (?: {WORD}){{0,2}} (?:anteriores|previas?|de arriba)\b
    |(?:忽略|忽视|忽視|无视|無視|忘记|忘記|忘掉)[^。!?,]{{0,6}}(?:之前|以上|上述|先前|前面|上面|所有|一切)[^。!?,]{{0,6}}
    (?:指令|指示|说明|說明|提示|规则|規則|要求)"""
NUMBER = r"(?:\d{1,3}|zero|ten|(?:a |one[ -])?hundred)(?: ?/ ?\d{1,3}| (?:out )?of \d{1,3}| points?| percent| ?%)?"
END = r"(?=$|[.!;,:)\"'\]](?!\d)| (?:and|for|to|no matter|regardless|instead|whatever|please|here)\b)"
STOP = r"(?:$|[.!;)\"'](?!\d))"
BEGIN = r"(?<![^.!?;:,] )"
"""Behind nothing but the end of another sentence, so that `score` and `rate` are no second halves of nouns."""
GRADE = r"(?:score|rating|grade|mark)"
SCORED = r"(?:images?|pictures?|photos?|captions?|texts?|descriptions?|pairs?|samples?)"
SCORE_REQUEST = rf"""(?:answer|reply|respond|output)(?: only| just| exactly)?(?: with)?(?: only| just)?(?: the| a)?
    (?: number| integer| score| rating| value)? ['\"]?{NUMBER}{END}
    |(?:rate|score|grade|judge) (?:this|it|that|the)(?: {WORD}){{0,2}}(?: as| at| with)? {NUMBER}{END}
    |(?:rate|score|grade|judge) (?:it|(?:this|that|the)(?: {WORD})? {SCORED})(?: as| at| with)?(?: the)?(?: very)?
     (?:high(?:est|ly)?|perfect|excellent|maximum|top|best)\b
    |(?:give|assign|award) (?:it|(?:this|that|the)(?: {WORD})? {SCORED}) (?:an?|the)(?: {WORD}){{0,2}}
     (?:score|rating|grade|mark|points)\b
    |(?:the|your|its) (?:only |right |correct |true |final |proper |acceptable |valid |possible |allowed |expected )*
    (?:(?:answer|reply|response)(?: to(?: {WORD}){{1,3}})?|score|rating)
     (?:is|must be|should be|has to be|shall be) ?:? ?{NUMBER}(?={STOP})
    |(?:give|assign|award|answer with|respond with|reply with|output|return)(?: (?:it|(?:this|that|the)(?: {WORD})?
     {SCORED}))? (?:an?|the) (?:{WORD} )?{GRADE} of {NUMBER}{END}
    |(?:set|change|put|make) (?:the|its|your|this|that)(?: {WORD})? {GRADE}(?: to| at)? {NUMBER}{END}
    |(?:give|assign|award)(?: it)? (?:the|an?) (?:maximum|max|highest|perfect|top|full)(?: possible)? {GRADE}s?\b
    |(?:give|assign|award) (?:it|(?:this|that|the)(?: {WORD})? {SCORED}) (?:\d{{1,3}}|(?:a |one[ -])?hundred)
    (?: ?/ ?\d{{1,3}}| (?:out )?of \d{{1,3}}| points?)?(?={STOP})
    |(?:please|kindly|must) (?:rate|score|grade|judge|say)(?: it)? {NUMBER}{END}
    |{BEGIN}(?:rate|grade|judge) \d{{1,3}} ?/ ?\d{{1,3}}(?={STOP})|{BEGIN}say ['\"]?{NUMBER}(?={STOP})
    |{BEGIN}(?:answer|reply|response|output|score|rating) ?: ?['\"]?{NUMBER}(?={STOP})"""
CHAT_MARKUP = r"""<\|[a-z_]{2,24}\|>|\[/?inst\]|<</?sys>>|<(?:start|end)_of_turn>
    |</?(?:image|img|video|audio)_?(?:token|start|end|pad|patch)>|^<image>|<image>$
    |\#{2,4} ?(?:instruction|response|human|assistant|system|user) ?:|(?:^| )(?:human|user) ?: .{1,400}? assistant ?:"""
PLEASE = r"(?:please |kindly |(?:can|could|would|will) you (?:please )?)?"
ASKED_ABOUT = r"""(?:images?|pictures?|photos?|photographs?|screenshots?|charts?|figures?|texts?|sentences?|passages?
    |paragraphs?|articles?|documents?)"""
ASKED_FOR = r"""(?:captions?|descriptions?|summary|summaries|poems?|essays?|stor(?:y|ies)|paragraphs?|haikus?|prompts?
    |code) (?:about|for|of|describing|based on|in|that|using|to|with)"""
INSTRUCTION = rf"""^{PLEASE}(?:describe|caption|summari[sz]e|translate|classify|explain|analy[sz]e|rewrite|paraphrase
    |interpret|transcribe|look at|based on)(?: {WORD}){{0,3}} (?:the|this|these|that|following|given|provided|above)
    (?: {WORD}){{0,2}} {ASKED_ABOUT}\b
    |^{PLEASE}(?:write|generate|compose|give me|provide|produce|tell me)(?: me)? (?:an?|the|one|two|three|\d{{1,2}})
    (?: {WORD}){{0,3}} {ASKED_FOR}\b
    |^(?:what|who|where|which|how many)(?: {WORD}){{1,8}} in (?:the|this) (?:image|picture|photo)\b
    |answer (?:the (?:following )?question (?:using|with|in|based|below)|with (?:yes or no|a single word|the option))
    |answer using a single word|(?:choose|select) the (?:correct|best|right) (?:answer|option)\b|think step by step
    |(?:respond|reply|output|answer)(?: only)? (?:with|in) (?:json|one word|a single|only)|your task is to\b
    |you (?:will be|are) (?:given|provided with|shown) (?:an?|the|some)\b
    |you are (?:an? )(?:helpful|ai|expert|large language)(?: {WORD}){{0,3}} (?:assistant|model|chatbot)"""
ASSISTANT = rf"""as an? (?:ai|artificial intelligence|large language|language)(?: language)? (?:model|assistant)\b
    |(?:i(?:'m| am) sorry,? (?:but )?i(?: can(?:no|')t| can not|'m (?:unable|not able) to| am (?:unable|not able) to)
    |i(?:'m| am) (?:unable|not able) to) (?:assist|help|identify|provide|fulfill|see|view|generate|describe|comply)\b
    |i can(?:no|')t (?:assist|fulfill|provide|identify|help with|view|see) (?:with )?
    (?:that|this|any|the (?:image|request)|images|real people)
    |as of my (?:last|latest) (?:knowledge|training|update)|(?:sure|certainly|of course)[,!]? here(?:'s| is| are)\b
    |here(?:'s| is) (?:a|an|the|your)(?: {WORD}){{0,3}} (?:caption|description|summary|translation)(?: of| for|:)
    |i hope this helps|how (?:can|may) i (?:help|assist) you(?: today)?\b"""
TALK = re.compile(
    rf"(?P<chat_markup>{CHAT_MARKUP})|(?:\b|(?=[忽无無忘]))(?:(?P<jailbreak>{JAILBREAK}|{JAILBREAK_ABROAD})|(?P<score_request>{SCORE_REQUEST})|(?P<instruction_like>{INSTRUCTION}|{ASSISTANT}))".replace(
        "\n    ", ""
    )
)
"""The parts are one pattern; a line break with four spaces behind it, as they are written above, is nothing."""


def talk(lowered: str) -> list[str]:
    """The flag of each passage found in a lower-cased plain text: jailbreak, score_request, chat_markup, ..."""
    return [str(found.lastgroup) for found in TALK.finditer(lowered)]


def asks_raters(text: str) -> bool:
    """Whether a plain text tells a rater what to answer, or any model to drop its orders."""
    return not {"jailbreak", "score_request"}.isdisjoint(talk(text.lower()))
