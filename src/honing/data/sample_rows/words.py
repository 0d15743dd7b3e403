"""Templates of the sample set whose answers are worked out from words and sentences."""

from __future__ import annotations

from itertools import cycle, islice
from random import Random

from honing.data.sample_rows.pattern import (
    FINAL_RIEUL,
    NO_FINAL,
    Pattern,
    Row,
    Table,
    draw_rows,
    final_consonant,
    table,
)

# Compatibility jamo, in the order in which Unicode counts the initials of syllables.
INITIALS = "ㄱㄲㄴㄷㄸㄹㅁㅂㅃㅅㅆㅇㅈㅉㅊㅋㅌㅍㅎ"
SYLLABLES_PER_INITIAL = 588

COUNT_WORDS = ("", "한", "두", "세", "네", "다섯", "여섯", "일곱", "여덟", "아홉")

STATEMENTS = table("""
    민수는 도서관에서 책을 읽습니다.; 기차가 세 시에 떠납니다.; 이 가게는 일요일에 쉽니다.
    할머니께서 시장에 가십니다.; 동생은 우유를 좋아합니다.; 오늘 저녁에 비가 옵니다.
    지하철역이 여기에서 가깝습니다.; 수업이 아홉 시에 시작됩니다.; 그 영화는 재미있습니다.
    선생님께서 교실에 계십니다.; 바다가 잔잔합니다.; 도서관은 밤 열 시까지 문을 엽니다.
    아이들이 운동장에서 뛰어놉니다.; 이 길은 시청으로 이어집니다.; 회의가 벌써 끝났습니다.
    그 책은 서점에서 팝니다.
""")

PLAIN_SENTENCES = table("""
    나는 어제 친구와 영화를 보았다.; 우리 가족은 주말마다 산에 오른다.
    할머니가 끓여 주신 된장국이 가장 맛있다.; 비가 그치자 마당에 새들이 모여들었다.
    기차를 놓쳐서 다음 차를 기다리고 있다.; 이번 방학에는 할아버지 댁에 가기로 했다.
    책상 위에 있던 안경이 보이지 않는다.; 감기에 걸려서 오늘은 집에서 쉬었다.
    가게 문이 닫혀 있어서 그냥 돌아왔다.; 새로 산 신발이 발에 꼭 맞는다.
    봄이 오면 뒷산에 진달래가 핀다.; 언니는 노래를 부르며 설거지를 한다.
    시험이 끝나서 마음이 한결 가볍다.; 아침부터 눈이 내려 길이 미끄럽다.
    물을 많이 마시는 것이 건강에 좋다.; 모르는 낱말은 사전에서 찾아보면 된다.
""")

POLITE_SENTENCES = table("""
    저는 매일 아침 우유를 마셔요.; 어머니께서 맛있는 김밥을 싸 주셨어요.
    도서관에서는 조용히 말해야 해요.; 빨간 자전거가 골목길을 달려가요.
    내일은 친구들과 바다에 가기로 했어요.; 작은 새가 나뭇가지에 앉아 있어요.
    수업이 끝나면 운동장에서 만나요.; 우리 할아버지는 바둑을 아주 잘 두세요.
    시원한 바람이 창문으로 들어와요.; 형은 밤늦게까지 시험공부를 했어요.
    새로 생긴 빵집은 늘 붐벼요.; 오늘은 제가 저녁을 차릴게요.
    길을 건널 때는 신호등을 보세요.; 편지를 써서 할머니께 보냈어요.
    눈이 와서 길이 하얗게 변했어요.; 아기가 엄마 품에서 잠들었어요.
""")

CATEGORIES = {
    "과일": ("사과", "포도", "복숭아", "참외"),
    "채소": ("배추", "당근", "오이", "시금치"),
    "악기": ("피아노", "바이올린", "장구", "플루트"),
    "탈것": ("버스", "기차", "비행기", "자전거"),
    "가구": ("침대", "책상", "옷장", "의자"),
    "학용품": ("연필", "지우개", "공책", "필통"),
    "꽃": ("장미", "튤립", "국화", "무궁화"),
    "곤충": ("나비", "개미", "잠자리", "메뚜기"),
    "운동 종목": ("축구", "농구", "수영", "배구"),
    "색깔": ("빨강", "파랑", "노랑", "초록"),
    "새": ("참새", "까치", "제비", "비둘기"),
    "바닷물고기": ("고등어", "갈치", "꽁치", "삼치"),
}

SORTABLE_WORDS = table("""
    가방; 거미; 구름; 나무; 노래; 누나; 다리; 도시; 두부; 라면; 마음; 모자; 무릎; 바람; 보리
    부채; 사자; 소금; 수박; 아침; 오리; 우산; 자두; 조개; 주먹; 차표; 초록; 치마; 카드; 코끼리
    탁자; 토끼; 파도; 포도; 하늘; 호수
""")

COUNTED_WORDS = table("""
    고양이; 하늘; 무지개; 도서관; 지하철; 민들레; 해바라기; 고슴도치; 미끄럼틀; 대한민국; 헬리콥터
    아이스크림; 크리스마스; 아랍에미리트; 오스트레일리아; 부에노스아이레스
""")

INITIAL_WORDS = table("""
    바다; 사랑; 학교; 친구; 김치; 여름; 빨래; 까치; 토끼; 햇살; 딸기; 쌀밥; 강아지; 고구마
    비빔밥; 컴퓨터
""")

MOVING_WORDS = table("""
    서울; 부산; 제주; 강릉; 학교; 교실; 병원; 시장; 바다; 지하철; 기차; 버스; 연필; 나무; 손
    칼
""")


def questions() -> Table:
    """합쇼체 statements and the questions made from them."""
    return tuple((said, said.removesuffix("다.") + "까?") for (said,) in STATEMENTS)


def without_spaces() -> Table:
    """Sentences run together, and as they ought to be."""
    return tuple((sentence.replace(" ", ""), sentence) for (sentence,) in PLAIN_SENTENCES)


def scattered_words() -> Table:
    """The words of each sentence in a wrong order, and the sentence."""
    rng = Random("word_order")
    rows = []
    for (sentence,) in POLITE_SENTENCES:
        words = sentence.removesuffix(".").split()
        shuffled = words
        while shuffled == words:
            shuffled = rng.sample(words, len(words))
        rows.append((" / ".join(shuffled), sentence))
    return tuple(rows)


def odd_ones(count: int) -> Table:
    """Three words of one kind and one of another, the odd word, and the name of the kind."""
    rng = Random("odd_one")
    rows = []
    for kind in islice(cycle(CATEGORIES), count):
        odd = rng.choice(
            [word for other in CATEGORIES if other != kind for word in CATEGORIES[other]]
        )
        words = [*rng.sample(CATEGORIES[kind], 3), odd]
        rows.append((", ".join(rng.sample(words, len(words))), odd, kind))
    return tuple(rows)


def dictionary_order(rng: Random) -> Row:
    """Four words, and the same as a dictionary has them: Unicode orders Hangul likewise."""
    words = [word for (word,) in rng.sample(SORTABLE_WORDS, 4)]
    return ", ".join(words), ", ".join(sorted(words))


def syllable_counts() -> Table:
    """Words, their syllables one by one, and how many there are, as one says it before 글자."""
    return tuple((word, ", ".join(word), COUNT_WORDS[len(word)]) for (word,) in COUNTED_WORDS)


def initials(word: str) -> str:
    """The initial consonants of a word: 바다 gives ㅂㄷ."""
    return "".join(INITIALS[(ord(each) - ord("가")) // SYLLABLES_PER_INITIAL] for each in word)


def reason_for_ro(word: str) -> str:
    """Why a word takes 으로 or 로."""
    final = final_consonant(word[-1])
    if final == NO_FINAL:
        return "받침이 없으므로"
    return "ㄹ 받침으로 끝나므로" if final == FINAL_RIEUL else "ㄹ이 아닌 받침으로 끝나므로"


WORD_PATTERNS = (
    Pattern(
        "question",
        slots="statement question",
        instruction="평서문을 의문문으로 고쳐 쓰세요.",
        input="{statement}",
        output="{question}",
        rows=questions(),
    ),
    Pattern(
        "spacing",
        slots="joined sentence",
        instruction="띄어쓰기가 하나도 안 되어 있네요. 바르게 띄어 써 주세요.",
        input="{joined}",
        output="{sentence}",
        rows=without_spaces(),
    ),
    Pattern(
        "word_order",
        slots="words sentence",
        instruction="흩어진 말을 이어 자연스러운 문장으로 만들어 보세요.",
        input="{words}",
        output="{sentence}",
        rows=scattered_words(),
    ),
    Pattern(
        "odd_one",
        slots="words odd kind",
        instruction="낱말 네 개 가운데 종류가 다른 하나를 고르세요.",
        input="{words}",
        output="{odd}[이/가] 다릅니다. 나머지는 모두 {kind}입니다.",
        rows=odd_ones(18),
    ),
    Pattern(
        "dictionary_order",
        slots="words sorted_words",
        instruction="사전에 실리는 차례대로 낱말을 늘어놓아 주세요.",
        input="{words}",
        output="사전에는 {sorted_words}의 차례로 실립니다.",
        rows=draw_rows("dictionary_order", 16, dictionary_order),
    ),
    Pattern(
        "syllables",
        slots="word spelt count",
        instruction="'{word}'[은/는] 모두 몇 글자인가요?",
        output="'{word}'[은/는] {spelt}, 이렇게 {count} 글자입니다.",
        rows=syllable_counts(),
    ),
    Pattern(
        "initials",
        slots="word initials",
        instruction="'{word}'의 초성만 차례로 말해 주십시오.",
        output="'{word}'의 초성을 차례로 쓰면 {initials}입니다.",
        rows=tuple((word, initials(word)) for (word,) in INITIAL_WORDS),
    ),
    Pattern(
        "ro",
        slots="word reason",
        instruction="'{word}' 뒤에는 '으로'와 '로' 중에서 어느 것을 붙여야 맞아요?",
        output="{reason} '{word}[으로/로]'가 맞아요.",
        rows=tuple((word, reason_for_ro(word)) for (word,) in MOVING_WORDS),
    ),
    Pattern(
        "particle",
        slots="before noun choice after",
        instruction="괄호 안의 두 조사 가운데 알맞은 것을 골라 문장을 완성하세요.",
        input="{before} {noun}({choice}) {after}",
        # Each row brings its own pair of particles, chosen after the row is filled in.
        output="{before} {noun}[{choice}] {after}",
        rows=table("""
            가을 | 하늘 | 은/는 | 높고 푸릅니다.; 겨울 | 바다 | 은/는 | 차갑습니다.
            한국의 | 여름 | 은/는 | 덥고 비가 많이 옵니다.; 산속 | 토끼 | 은/는 | 풀을 먹습니다.
            제 | 취미 | 은/는 | 사진 찍기입니다.; 마당에 | 꽃 | 이/가 | 활짝 피었습니다.
            골목에 | 고양이 | 이/가 | 앉아 있습니다.; 밤새 | 눈 | 이/가 | 많이 내렸습니다.
            아침에 | 비 | 이/가 | 그쳤습니다.; 교실에 | 학생 | 이/가 | 두 명 남았습니다.
            동생이 | 우유 | 을/를 | 마십니다.; 저는 | 책 | 을/를 | 좋아합니다.
            어머니는 | 김치 | 을/를 | 담그십니다.; 우리는 | 노래 | 을/를 | 불렀습니다.
            아버지가 | 문 | 을/를 | 닫으셨습니다.; 식탁에 | 물 | 과/와 | 컵이 있습니다.
            어제 | 친구 | 과/와 | 영화를 보았습니다.; 아이가 | 연필 | 으로/로 | 이름을 씁니다.
            형은 | 기차 | 으로/로 | 부산에 갔습니다.; 할머니는 | 손 | 으로/로 | 만두를 빚으십니다.
        """),
    ),
)
