"""The sample data of the first draft, kept as a bad example: ten templates, few fillings, repeated.

Rows drawn from these at random lie in training and validation alike, so that a validation loss
measures memory. `data.source: sample-10` shows it.
"""

from honing.data.sample_rows.pattern import Pattern, table

FIRST_DRAFT_PATTERNS = (
    Pattern(
        "capital",
        slots="country full_name city",
        instruction="{country}의 수도는 어디인가요?",
        output="{full_name}의 수도는 {city}입니다.",
        rows=table("""
            한국 | 대한민국 | 서울; 일본 | 일본 | 도쿄; 중국 | 중국 | 베이징; 미국 | 미국 | 워싱턴
            영국 | 영국 | 런던; 독일 | 독일 | 베를린; 프랑스 | 프랑스 | 파리
        """),
    ),
    Pattern(
        "food",
        slots="food reason",
        instruction="{food}의 효능에 대해 설명해주세요.",
        output="{food}[은/는] {reason} 좋습니다.",
        rows=table("""
            김치 | 유산균이 많아서 장 건강에; 마늘 | 피로를 푸는 데; 당근 | 베타카로틴이 많아서 눈에
            우유 | 칼슘이 많아서 뼈에; 두부 | 단백질이 많아서 근육에; 고구마 | 변비를 막는 데
            호두 | 불포화 지방산이 많아서 혈관에
        """),
    ),
    Pattern(
        "habit",
        slots="part habit",
        instruction="{part} 건강을 위한 습관을 알려주세요.",
        output="{habit} 것이 좋습니다.",
        rows=table("""
            눈 | 자주 먼 곳을 바라보는; 허리 | 바른 자세로 앉는; 치아 | 하루 세 번 이를 닦는
            피부 | 물을 자주 마시는; 심장 | 짜게 먹지 않는; 뼈 | 햇볕을 쬐며 걷는
            마음 | 하루에 한 번 크게 웃는
        """),
    ),
    Pattern(
        "sum",
        slots="first second total",
        instruction="{first} 더하기 {second}[은/는] 얼마인가요?",
        output="{total}입니다.",
        rows=table("""
            2 | 3 | 5; 4 | 5 | 9; 7 | 6 | 13; 8 | 9 | 17; 10 | 15 | 25; 12 | 8 | 20; 20 | 30 | 50
        """),
    ),
    Pattern(
        "color",
        slots="thing color",
        instruction="{thing}[은/는] 무슨 색인가요?",
        output="{thing}[은/는] {color}입니다.",
        rows=table("""
            바나나 | 노란색; 딸기 | 빨간색; 하늘 | 파란색; 눈 | 하얀색; 까마귀 | 검은색
            개나리 | 노란색; 오이 | 초록색
        """),
    ),
    Pattern(
        "translate",
        slots="korean english",
        instruction="'{korean}'[을/를] 영어로 번역해주세요.",
        output="{english}",
        rows=table("""
            안녕하세요 | Hello.; 감사합니다 | Thank you.; 미안합니다 | I am sorry.
            사랑합니다 | I love you.; 축하합니다 | Congratulations.; 안녕히 주무세요 | Good night.
            저는 학생입니다 | I am a student.
        """),
    ),
    Pattern(
        "opposite",
        slots="word opposite",
        instruction="'{word}'의 반대말은 무엇인가요?",
        output="'{opposite}'입니다.",
        rows=table("""
            크다 | 작다; 높다 | 낮다; 많다 | 적다; 길다 | 짧다; 빠르다 | 느리다; 밝다 | 어둡다
            무겁다 | 가볍다
        """),
    ),
    Pattern(
        "weather",
        slots="weather advice",
        instruction="{weather} 날에는 무엇을 하면 좋을까요?",
        output="{advice} 좋습니다.",
        rows=table("""
            맑은 | 공원을 산책하면; 비 오는 | 집에서 책을 읽으면; 눈 오는 | 눈사람을 만들면
            더운 | 시원한 물에서 수영하면; 추운 | 따뜻한 차를 마시면; 바람 부는 | 연을 날리면
            흐린 | 미술관에 가면
        """),
    ),
    Pattern(
        "greeting",
        slots="moment greeting",
        instruction="{moment} 하는 인사말을 알려주세요.",
        output='"{greeting}"라고 인사합니다.',
        rows=table("""
            처음 만났을 때 | 처음 뵙겠습니다.; 밥을 먹기 전에 | 잘 먹겠습니다.
            헤어질 때 | 안녕히 가세요.; 자기 전에 | 안녕히 주무세요.
            새해에 | 새해 복 많이 받으세요.; 집을 나설 때 | 다녀오겠습니다.
            생일에 | 생일 축하합니다.
        """),
    ),
    Pattern(
        "list",
        slots="kind first second third",
        instruction="{kind} 세 가지를 알려주세요.",
        output="{first}, {second}, {third}[이/가] 있습니다.",
        rows=table("""
            과일 | 사과 | 배 | 포도; 동물 | 개 | 고양이 | 토끼; 악기 | 피아노 | 기타 | 북
            운동 | 축구 | 농구 | 수영; 채소 | 배추 | 무 | 오이; 색깔 | 빨강 | 파랑 | 노랑
            계절 | 봄 | 여름 | 가을
        """),
    ),
)
