"""Korean speech levels from the endings of sentences: an ordered table of surface rules.

No tagger is needed. The last words of a sentence, without what trails behind them (~ ! ㅋㅋ ^^ ”
emoji), are held against RULES; the first rule that fits decides. Names and divisions follow the
school grammar (합쇼체, 해요체, 해체, 해라체), with these borderline decisions:

- haeyo: all that ends in 요, -지요/-죠 too, and its spellings in chat (-여, -용, 해유, 하죠).
- hapsyo: also 하오체 -(으)시오 (as in 답하시오), -소서, and -슴다.
- hae: -네, -군, -는데, -거든, -(으)ㄹ게/래/까/걸, -나?, -는가?, quoting -대, -래, -다고, -다며.
- haera: -다, -자, -니, -냐, -(아/어)라, -구나, -렴, -(으)마. 반말 mixes hae and haera freely.
- none: nouns, -음/-기/-것, connectives (-고, -서, -면, -니까, -는지), particles, 응, 네, 안녕,
  other languages, the rest of 하오체 (-오, -소). 가 or 와 alone is none; after another word it
  is taken as a verb.
- After a comma, a part without a level (an address, an afterthought) leaves the level of the
  part before it.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Literal, get_args

Level = Literal["hapsyo", "haeyo", "hae", "haera", "none"]
LEVELS: tuple[Level, ...] = get_args(Level)

_FINALS = " ㄱㄲㄳㄴㄵㄶㄷㄹㄺㄻㄼㄽㄾㄿㅀㅁㅂㅄㅅㅆㅇㅈㅊㅋㅌㅍㅎ"
_VOWELS = "ㅏㅐㅑㅒㅓㅔㅕㅖㅗㅘㅙㅚㅛㅜㅝㅞㅟㅠㅡㅢㅣ"

# --- the rules. <ㅂ>: a syllable with one of these finals. <ㅏ>: one with one of these vowels and
# no final. <ㅏ+>: one with one of these vowels and a final.

_VERB_BEFORE_YO = (
    "[해어아세네예에데져까나게거죠지셔워돼되줘봐려고구군가든대래요]"  # 했어여, 맞아용, 그래유
)

RULES: tuple[tuple[Level, str], ...] = (
    ("none", r"[을를] (?:위|통|향)해|에 (?:대|의|비)해|로 인해|예를 들어|에 따라"),
    # 요
    ("none", r"필요|중요|수요|\b주요|동요|민요|소요|개요|강요|담요|\b고요|긴요|대중가요|\b요"),
    ("haeyo", r"요|[^으]죠|\b죠|죵|쥬"),
    ("none", r"대여|하여|\b어용|가용"),
    ("haeyo", rf"{_VERB_BEFORE_YO}(?:여|용|욤|욧|욬|욥|염|유)"),
    # -ㅂ니다, -ㅂ니까, -ㅂ시다, -ㅂ시오
    ("hapsyo", r"<ㅂㅁ>니(?:다|당|닷|닼|까|다만|다마는)|<ㅂ>디[다까]|<ㅂ>시[다당]|<ㅂ>쇼"),
    ("hapsyo", r"시오|소서|[슴함임됨]다"),
    # -니까, -까
    ("hae", r"[다라냐자]니까"),
    ("hae", r"<ㄹ>까"),
    # 다
    ("none", r"\b바다|밤바다|판다|수다|소다|사이다|캐나다|람다|우간다|르완다|\b다|마다|혼다"),
    ("haera", r"\b보다|[아어라려펴켜해다]보다"),
    ("none", r"보다"),
    ("haera", r"다|닷|닼"),
    ("none", r"[분인건]당|간당간당"),
    ("haera", r"(?:<ㄴㅆ>|[좋없많싫같렇프쁘크])당"),
    # 구나, 나
    ("haera", r"[구꾸무]나"),
    (
        "hae",
        r"[가-힣]자나|<ㅆ>나|없나|[려라]나|게나|[야까면] ?하나|어떡하나|어쩌나|뭐 하나|[히리되]나",
    ),
    (
        "hae",
        r"(?:화|생각|냄새|끝|일어|만|떠|기억|빛|혼|신|짜증|겁|엄청|벗어|태어|깨어|나타|열|눈물) ?나"
        r"|[안티음] ?나|자꾸 나",
    ),
    ("none", r"\b(?:하나|누나|바나나|언제나|누구나|나|너나|그러나|코로나|어디나)\??|[이거으]나\??"),
    ("hae", r"나\?"),
    # 라
    ("hae", r"(?:몰|달|골|올|빨|갈|잘|놀|졸|발)라"),
    ("haera", r"지 ?말라"),
    ("hae", r"말라"),
    ("none", r"카메라|오페라|신라|콜라|빌라|고릴라|브라|아우라|한라|만다라|사하라|소라"),
    ("haera", r"(?:일어|떠|만|깨어|벗어|태어|빛|끝)나라"),
    ("none", r"나라|이라"),
    ("haera", r"(?:<ㅏㅓㅕㅐㅘㅝㅙ>|[더리으노시오보주쓰두지기치키되])라|<ㄹ>라"),
    # 자
    (
        "none",
        r"참가자|평가자|휴가자|후보자|제보자|관리자|승리자|대리자|통치자|거주자|안내자|응시자|지시자|선지자"
        r"|지지자|소지자|당사자|\b기자|이자|[한두세네섯곱덟홉열] 자",
    ),
    ("haera", r"[을를] (?:배우|타|사|주)자|모이자"),
    ("none", r"배우자|남자|감자|입자|글자|\b사자|\b타자|\b주자"),
    (
        "haera",
        r"[하가보리치지시내나되두쉬오쓰자우주러니뛰알르먹있앉읽걷웃믿찾잡놀살말울씻입듣묻닫받얻넣놓]자",
    ),
    ("haera", r"[잊맞갚깎볶닦뽑접참남넘숨심열팔풀걸들빌밀끌털붙뵙]자"),
    ("haera", r"(?:이|즐|옮|남|맡|숨|챙|넘|당|웃|벗)기자"),
    # 니, 냐, 랴, 렴, 마
    ("none", r"더니"),
    ("hae", r"[가-힣][다라냐자]니"),
    ("none", r"머니|[바비]구니|언니|\b미니|[금랑앞틀송곳]니|케냐|소냐"),
    ("haera", r"[가-힣]니|냐|랴"),
    ("none", r"폐렴|수렴|저렴|청렴|후렴"),
    ("haera", r"렴|[으주보]마|\b가마|[주하]련|[아어려해여] ?다오"),
    ("hae", r"[가-힣]지 ?마|걱정 ?마|[가-힣] 마"),
    # 게, 께, 래, 대, 걸, 데
    ("none", r"들께|길게|멀게|힘들게|둥글게|가늘게|거칠게|\b달게"),
    ("hae", r"<ㄹ>[게께]|[가-힣]하게\?"),
    ("none", r"빨래|\b달래|(?:얼마나|그렇게|이렇게|더|너무|꽤|아주|^) ?오래"),
    ("none", r"[노미고거원유본모또장초도나다]래|\b아래"),
    ("hae", r"래|어때"),
    ("hae", r"(?:<ㅆ>|[없는좋많싫같않])대"),
    ("none", r"시간대"),
    ("hae", r"(?:간|온|산|잔|준|된|한|난|친|린|신|낸|진)대"),
    ("none", r"\b[그이저]걸"),
    ("hae", r"<ㄹ>걸|[는한인던]걸|걸랑"),
    ("none", r"가운데|그런데|\b근데|\b한데|군데"),
    ("hae", r"<ㄴ>데"),
    # 네, 군
    (
        "none",
        r"동네|[너걔쟤얘]네|우리네|\b그네|\b자네|(?:언니|오빠|누나|이모|삼촌|친구|엄마)네|\b네",
    ),
    ("hae", r"네|넹"),
    ("hae", r"(?:<ㅆ>|[는이하되크좋많없있같렇쁘더로싶싫])군|구만|구먼"),
    # 지
    ("none", r"까지|<ㅇ>지|[금엄감음심]지|목적지|유적지|벽지|녹지|잡지|답지|습지"),
    (
        "none",
        r"아지|버지|바지|미지|메시지|소시지|돼지|휴지|토지|여지|의지|유지|폐지|페이지|설거지|사지|수지|가지|지지",
    ),
    ("hae", r"(?:\b(?:알|살|놀|들|멀|길|울|달|말|팔|열|걸|풀)|힘들|만들|흔들)지"),
    ("none", r"<ㄴㄹ>지|특징|취지|든지|던지|\b지"),
    ("hae", r"지|징|\b그치|글치|<ㅎㄶ>치"),
    # 야
    (
        "hae",
        r"[거꺼녀]야|뭐야|\b나야|(?:누구|어디|얼마|언제|아니|진짜|가짜|별로|의외|최고|부터)야|손해야",
    ),
    (
        "none",
        r"분야|\b시야|평야|광야|심야|재야|[서에고]야|[이그]제야|이라야|<ㅓㅕㅝㅘㅙ>야|[해내아]야",
    ),
    ("none", r"\b[가자사]야"),
    ("hae", r"이야"),
    ("none", r"^[^ ]*야\??"),
    ("hae", r"야"),
    # quoting, 거든, 는가
    ("none", r"\b(?:라고|이라고|하고)"),
    ("hae", r"[가-힣][다라자냐려][고구]|거든|<ㅆ>고\?|[다라]며\?|[다라]면서\?"),
    ("none", r"누군가|뭔가|언젠가|전문가"),
    ("hae", r"[는던인은]가|<ㄴ>가|[뭐]람|[한는난]담"),
    # 아, 어
    ("none", r"동아|[들놈년]아"),
    ("hae", r"<ㅏㅗㅑ+>아|[보모나쏘조]아|<ㅏㅗ+>앙"),
    (
        "none",
        r"영어|언어|국어|일어|독어|인어|문어|연어|용어|숙어|붕어|준어|틴어|밍어|색어|령어|은어|단어"
        r"|검어|본어|장어|상어|악어|헤어",
    ),
    ("hae", r"<ㅓㅕㅜㅡㅣㅐㅔㅚㅟㅢㅆㅏㅗㅝㅘㅙㅖㅠㅛ+>어|[쉬되피뛰비쥐띄]어|<ㅆ>엉"),
    # contracted: 해, 돼, 와, 봐, 줘, 려 …
    ("hae", r"창피해|침침해|너무 분해"),
    (
        "none",
        r"\b[동서남올방손새저재공항박분견양화]해|[이오침]해|(?<!회)피해|자연재해"
        r"|지난해|\b그 ?해|첫 ?해|한 해",
    ),
    ("hae", r"해|돼|되|[안랑뭐]행"),
    (
        "hae",
        r"[가-힣] 와|(?:나|도|다가|건너|챙겨|찍어|받아|돌아|들어|가져|찾아|걸어|데려|이리|따라)와"
        r"|(?:올라|내려|안|놀러|빨리)와",
    ),
    ("none", r"뭐|샤워|타워|파워|플라워"),
    ("hae", r"<ㅝ>|봐|놔|쏴"),
    (
        "none",
        r"하려|으려|고려|염려|배려|격려|장려|우려|참여|기여|수여|부여|급여|투여|잉여|이여|이며",
    ),
    ("hae", r"[려져셔쳐겨켜펴껴텨]|[보모쌓줄붙먹끓높죽숙속섞쓰놓꼬직벌들울]여|다녀|<ㄱㅂㄷㅈㄺ>혀"),
    ("none", r"벌써|로써"),
    (
        "hae",
        r"써|[예기이]뻐|[슬아글]퍼|[아고]파|[바나]빠|싸|시러|같애|설레|너무 쎄"
        r"|(?:불|흘|눌|들|둘|굴|질|찔|툴|을|물)러",
    ),
    ("none", r"[내네니제할갈될볼올살줄] 꺼"),
    (
        "hae",
        r"[가-힣] [꺼커떠서가자타사짜내]|썸타|(?:보|지|끝|꺼|빛|혼|힘|알아|찾아|이겨)내",
    ),
    (
        "hae",
        r"(?:나|들어|이어|넘어|올라|내려|돌아|지나|다가|찾아|걸어|따라|가져|데려|뛰어|놀러 ?)가"
        r"|(?:잠|로|에)가|[못잘]자|일어서",
    ),
)


def level_of(sentence: str) -> Level:
    """The speech level of one sentence."""
    level = _level_of_ending(_ending(sentence))
    if level == "none" and "," in sentence:
        return _level_of_ending(_ending(sentence.rpartition(",")[0]))
    return level


def levels_of(text: str) -> list[Level]:
    """The speech level of each of a text's sentences."""
    return [level_of(sentence) for sentence in split_sentences(text)]


@lru_cache(maxsize=1)
def _compiled_rules() -> tuple[tuple[Level, re.Pattern[str]], ...]:
    return tuple(
        (level, re.compile(rf"(?:{re.sub(r'<(.+?)>', _syllables, pattern)})\??$"))
        for level, pattern in RULES
    )


def _syllables(match: re.Match[str]) -> str:
    """<ㅂ> → a class of all syllables with that final; <ㅏ>, <ㅏ+>: see RULES."""
    wanted = match[1]
    number = len(_FINALS)
    found = []
    for code in range(0xAC00, 0xD7A4):
        vowel, final = divmod((code - 0xAC00) % (21 * number), number)
        is_vowel = _VOWELS[vowel] in wanted and (final > 0) == wanted.endswith("+")
        if is_vowel or (final > 0 and _FINALS[final] in wanted):
            found.append(chr(code))
    return f"[{''.join(found)}]"


def _level_of_ending(ending: str) -> Level:
    if not ending:
        return "none"
    for level, pattern in _compiled_rules():
        if pattern.search(ending):
            return level
    return "none"


# --- sentences

_CLOSING = r"""["'”’」』)\]}>»*_`]"""
_FACES = r"(?:[:;=xX8]-?[)(DPpOo3|/]+|\^[_.-]*\^|[Tㅜㅠㅡ-][_.][Tㅜㅠㅡ-]|<3)"
# Possessive: a face can also be read sign by sign, and trying both takes exponential time.
_TAIL = re.compile(rf"(?:{_FACES}|[\W_ㄱ-ㅎㅏ-ㅣ])++$")
_MOST_CHARACTERS = 400
_LONGEST_ENDING = 40
_PARENTHESIS = re.compile(r"\s*[(\[（][^()\[\]（）]*[)\]）]$")


def _ending(sentence: str) -> str:
    """The last three words without their tail, "?" added for a question; empty where the sentence
    does not end in Hangul."""
    text = unicodedata.normalize("NFC", sentence).strip()[-_MOST_CHARACTERS:]
    trimmed = text.rstrip(" .!?~…")
    without = _PARENTHESIS.sub("", trimmed)
    if without != trimmed and re.search("[가-힣]", without):
        text = without
    body = re.sub("(?<=[가-힣]) 뭐$", "", _TAIL.sub("", text))
    if not re.search("[가-힣]$", body):
        return ""
    words = re.findall(r"\w+", body[-_LONGEST_ENDING:])[-3:]
    return " ".join(words) + ("?" if re.search("[?？]", text[len(body) :]) else "")


_URL = re.compile(r"(?:https?://|www\.)[^\s가-힣]+|(?<![\w.+-])[a-zA-Z0-9.+_-]+@[\w.-]+\w")
_MARKER = re.compile(
    r"^(?:#+\s|>\s?|[-*•·▶■◆○●]\s|\(?\d{1,3}[.)](?!\d)|[①-⑳]|[가나다라마바사]\.\s)\s*"
)
_PAIRS = {"“": "”", "‘": "’", "「": "」", "『": "』", "《": "》", "(": ")", "[": "]", '"': '"'}
_EMOJI = "\U0001f000-\U0001faff\u2600-\u27bf\u2b00-\u2bff\ufe0f\u200d♥"
_SOFT = rf"(?:~|∼|～|…|\.\.+|;;|[ㄱ-ㅎㅏ-ㅣ]{{2,}}|[ㅋㅎㅠㅜ]|[{_EMOJI}]|{_FACES})"
_END = re.compile(
    rf"(?P<hard>[!?。？！]+|\.(?!\.))(?:\s*{_SOFT}|[.!?]|{_CLOSING})*|(?:{_SOFT}\s?)*{_SOFT}"
)


def split_sentences(text: str) -> list[str]:
    """The sentences of a text, each with its closing marks; without list markers.

    They end at line ends and at . ? ! before a space or between Hangul; at ~ … ㅋㅋ ^^ and emoji
    where what stands before has a level. Nothing ends within quotes, brackets, numbers, addresses.
    """
    sentences: list[str] = []
    for line in unicodedata.normalize("NFC", text).splitlines():
        line = _MARKER.sub("", line.strip())
        spans = _closed_spans(line)
        start = 0
        for match in _END.finditer(line):
            if match.end() < len(line) and _is_end(line, start, match, spans):
                sentences.append(line[start : match.end()].strip())
                start = match.end()
        sentences.append(line[start:].strip())
    return [sentence for sentence in sentences if re.search(r"\w", sentence)]


def _is_end(line: str, start: int, match: re.Match[str], spans: list[tuple[int, int]]) -> bool:
    """Whether a sentence that began at start ends with the match."""
    around = [(first, last) for first, last in spans if first <= match.start() < last]
    if any(match.end() < last or line[start:first].strip() for first, last in around):
        return False
    before, after = line[start : match.start()], line[match.end()]
    if match["hard"] is None:
        return after.isspace() and level_of(before) != "none"
    if "." in match["hard"] and re.search(r"(?:^|\s)\d{1,3}$", before):
        return False
    return after.isspace() or (
        not around and bool(re.search("[가-힣]$", before)) and bool(re.match("[가-힣]", after))
    )


def _closed_spans(line: str) -> list[tuple[int, int]]:
    """Addresses, quotations and brackets: first and last + 1 of each outermost one."""
    spans = [match.span() for match in _URL.finditer(line)]
    opened, place = None, 0
    for index, character in enumerate(line):
        if opened is None and character in _PAIRS and _PAIRS[character] in line[index + 1 :]:
            opened, place = _PAIRS[character], index
        elif character == opened:
            spans.append((place, index + 1))
            opened = None
    return spans
