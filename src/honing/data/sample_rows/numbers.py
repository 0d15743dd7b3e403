"""Templates of the sample set whose answers are calculated: sums, units, times and dates."""

from __future__ import annotations

from datetime import date, timedelta
from random import Random

from honing.data.sample_rows.pattern import Pattern, Row, draw_rows, table

EATEN_OR_USED = table("""
    사과 | 개 | 먹었어요; 연필 | 자루 | 친구에게 주었어요; 색종이 | 장 | 썼어요
    동화책 | 권 | 읽었어요; 귤 | 개 | 나누어 먹었어요; 구슬 | 개 | 잃어버렸어요
    달걀 | 개 | 깨뜨렸어요; 우표 | 장 | 편지에 붙였어요
""")
SHARED = table("사탕 | 개; 색종이 | 장; 공책 | 권; 딱지 | 장; 연필 | 자루; 밤 | 개; 구슬 | 개")
SOLD = table("연필 | 자루; 공책 | 권; 사과 | 개; 빵 | 개; 엽서 | 장; 과자 | 봉지; 장미 | 송이")
DISCOUNTED = ("가방", "모자", "외투", "신발", "시계", "우산", "장갑", "의자")
EVENTS = ("영화", "수업", "회의", "공연", "경기", "강연", "연습", "연극")
COUNTED = table(
    "고양이 | 마리; 책 | 권; 사과 | 개; 연필 | 자루; 나무 | 그루; 자동차 | 대; 꽃 | 송이"
)
UNITS = table("""
    킬로미터 | 미터 | 1000; 미터 | 센티미터 | 100; 센티미터 | 밀리미터 | 10; 톤 | 킬로그램 | 1000
    킬로그램 | 그램 | 1000; 리터 | 밀리리터 | 1000; 시간 | 분 | 60; 분 | 초 | 60; 년 | 개월 | 12
""")
WEEKDAYS = tuple(f"{day}요일" for day in "월화수목금토일")

DIGITS = ("", "일", "이", "삼", "사", "오", "육", "칠", "팔", "구")
PLACES = ("", "십", "백", "천")
NATIVE_ONES = ("", "한", "두", "세", "네", "다섯", "여섯", "일곱", "여덟", "아홉")
NATIVE_TENS = ("", "열", "스물")


def addition(rng: Random) -> Row:
    """Two numbers and their sum."""
    first, second = rng.randint(11, 89), rng.randint(3, 60)
    return str(first), str(second), str(first + second)


def left_over(rng: Random) -> Row:
    """Things, some of which are used up."""
    item, unit, used_up = rng.choice(EATEN_OR_USED)
    total = rng.randint(8, 30)
    used = rng.randint(2, total - 2)
    return item, unit, used_up, str(total), str(used), str(total - used)


def product(rng: Random) -> Row:
    """Two numbers and their product."""
    first, second = rng.randint(3, 25), rng.randint(3, 9)
    return str(first), str(second), str(first * second)


def sharing(rng: Random) -> Row:
    """Things that do not share out evenly."""
    item, unit = rng.choice(SHARED)
    people, each = rng.randint(3, 8), rng.randint(2, 9)
    rest = rng.randint(1, people - 1)
    return item, unit, str(people * each + rest), str(people), str(each), str(rest)


def average(rng: Random) -> Row:
    """Three numbers with a whole mean."""
    mean, up, down = rng.randint(20, 60), rng.randint(1, 9), rng.randint(1, 9)
    numbers = f"{mean + up}, {mean - down}, {mean - up + down}"
    return numbers, str(3 * mean), str(mean)


def ascending(rng: Random) -> Row:
    """Five numbers, and the same in order."""
    numbers = rng.sample(range(3, 100), 5)
    return ", ".join(map(str, numbers)), ", ".join(map(str, sorted(numbers)))


def sequence(rng: Random) -> Row:
    """Four numbers at equal steps, upwards or downwards, and the fifth."""
    start, step = rng.randint(40, 60), rng.choice([-9, -7, -5, -4, -3, 2, 3, 4, 6, 8])
    numbers = [start + step * place for place in range(5)]
    shown = ", ".join(map(str, numbers[:4]))
    return shown, str(abs(step)), "커지므로" if step > 0 else "작아지므로", str(numbers[4])


def even_or_odd(rng: Random) -> Row:
    """A number, and why it is even or odd."""
    number = rng.randint(10, 250)
    if number % 2:
        return str(number), "2로 나누면 1이 남으므로 홀수"
    return str(number), "2로 나누어떨어지므로 짝수"


def change(rng: Random) -> Row:
    """Some of a thing at a price each, and the change from one note."""
    item, unit = rng.choice(SOLD)
    price, count = rng.randrange(400, 1700, 100), rng.randint(2, 6)
    spent = price * count
    paid = next(note for note in (5_000, 10_000) if note > spent)
    return item, unit, f"{price:,}", str(count), f"{paid:,}", f"{spent:,}", f"{paid - spent:,}"


def discount(rng: Random) -> Row:
    """A price, a discount in per cent, what it takes off and what it leaves."""
    price, percent = rng.randrange(10_000, 50_000, 2_000), rng.randrange(10, 50, 10)
    cut = price * percent // 100
    return rng.choice(DISCOUNTED), f"{price:,}", str(percent), f"{cut:,}", f"{price - cut:,}"


def end_time(rng: Random) -> Row:
    """A start in the afternoon, a length in minutes, and the end."""
    hour, minute, length = rng.randint(1, 8), rng.randrange(10, 60, 10), rng.randrange(40, 130, 5)
    end_hour, end_minute = divmod(60 * hour + minute + length, 60)
    end = f"{end_hour}시 {end_minute}분" if end_minute else f"{end_hour}시"
    return rng.choice(EVENTS), f"{hour}시 {minute}분", str(length), end


def weekday_after(rng: Random) -> Row:
    """A weekday, and the one some days later."""
    today, days = rng.randrange(7), rng.choice([3, 4, 5, 8, 9, 10, 11, 12, 15, 20])
    return WEEKDAYS[today], str(days), WEEKDAYS[(today + days) % 7]


def date_after(rng: Random) -> Row:
    """A date, and the one some days later; from March on, so that leap years do not matter."""
    start = date(2023, 3, 1) + timedelta(days=rng.randrange(270))
    days = rng.choice([5, 7, 10, 14, 20])
    end = start + timedelta(days=days)
    return f"{start.month}월 {start.day}일", str(days), f"{end.month}월 {end.day}일"


def unit_conversion(rng: Random) -> Row:
    """A number of larger units in smaller ones."""
    large, small, factor = rng.choice(UNITS)
    number = rng.randint(2, 9)
    converted = f"{number * int(factor):,}{small}"
    return f"{number}{large}", large, small, f"{int(factor):,}", converted


def number_reading(rng: Random) -> Row:
    """A number below ten thousand, in digits and as it is read."""
    number = rng.randint(101, 9999)
    return f"{number:,}", read_number(number)


def native_counting(rng: Random) -> Row:
    """A thing counted in digits, and in native numerals."""
    item, unit = rng.choice(COUNTED)
    number = rng.randint(3, 29)
    return item, f"{number}{unit}", f"{read_native(number)} {unit}"


def read_number(number: int) -> str:
    """A number below ten thousand in Sino-Korean numerals: 1,203 gives 천이백삼."""
    reading = ""
    for place, digit in enumerate(reversed(str(number))):
        if digit != "0":
            # One says 천, 백 and 십 without a leading 일.
            numeral = "" if digit == "1" and place else DIGITS[int(digit)]
            reading = numeral + PLACES[place] + reading
    return reading


def read_native(number: int) -> str:
    """A number below thirty as it is said before a counter: 한, 열두, 스무."""
    return "스무" if number == 20 else NATIVE_TENS[number // 10] + NATIVE_ONES[number % 10]


NUMBER_PATTERNS = (
    Pattern(
        "addition",
        slots="first second total",
        instruction="{first} 더하기 {second}[은/는] 얼마입니까?",
        output="{first} 더하기 {second}[은/는] {total}입니다.",
        rows=draw_rows("addition", 15, addition),
    ),
    Pattern(
        "left_over",
        slots="item unit used_up total used left",
        instruction="{item} {total}{unit} 중에 {used}{unit}[을/를] {used_up}. 몇 {unit} 남았어요?",
        output="{total}{unit}에서 {used}{unit}[을/를] 빼면 {left}{unit}[이/가] 남아요.",
        rows=draw_rows("left_over", 15, left_over),
    ),
    Pattern(
        "product",
        slots="first second total",
        instruction="{first}에 {second}[을/를] 곱하면 몇이 되는지 계산해 주세요.",
        output="{first}에 {second}[을/를] 곱하면 {total}[이/가] 됩니다.",
        rows=draw_rows("product", 15, product),
    ),
    Pattern(
        "sharing",
        slots="item unit total people each rest",
        instruction="{item} {total}{unit}[을/를] {people}명이 똑같이 나누어 가지려고 합니다. "
        "몇 {unit}씩 가지고 몇 {unit}[이/가] 남을까요?",
        output="한 사람이 {each}{unit}씩 가지고 {rest}{unit}[이/가] 남습니다.",
        rows=draw_rows("sharing", 15, sharing),
    ),
    Pattern(
        "average",
        slots="numbers total mean",
        instruction="세 수의 평균을 구해 주세요.",
        input="{numbers}",
        output="모두 더하면 {total}이고, 3으로 나누면 평균은 {mean}입니다.",
        rows=draw_rows("average", 15, average),
    ),
    Pattern(
        "ascending",
        slots="numbers ordered",
        instruction="작은 수부터 다시 쓰십시오.",
        input="{numbers}",
        output="작은 수부터 쓰면 {ordered}입니다.",
        rows=draw_rows("ascending", 15, ascending),
    ),
    Pattern(
        "sequence",
        slots="numbers step direction following",
        instruction="규칙을 찾아 □에 들어갈 수를 맞혀 보세요.",
        input="{numbers}, □",
        output="{step}씩 {direction} □에 들어갈 수는 {following}입니다.",
        rows=draw_rows("sequence", 15, sequence),
    ),
    Pattern(
        "even_or_odd",
        slots="number verdict",
        instruction="{number}[은/는] 짝수예요, 홀수예요?",
        output="{number}[은/는] {verdict}예요.",
        rows=draw_rows("even_or_odd", 15, even_or_odd),
    ),
    Pattern(
        "change",
        slots="item unit price count paid spent rest",
        instruction="한 {unit}에 {price}원 하는 {item}[을/를] {count}{unit} 사고 {paid}원을 "
        "냈습니다. 거스름돈은 얼마입니까?",
        output="{spent}원을 썼으므로 거스름돈은 {rest}원입니다.",
        rows=draw_rows("change", 15, change),
    ),
    Pattern(
        "discount",
        slots="item price percent cut rest",
        instruction="{price}원짜리 {item}[을/를] {percent}% 싸게 팔면 값이 얼마가 되나요?",
        output="{cut}원을 깎아 {rest}원이 됩니다.",
        rows=draw_rows("discount", 15, discount),
    ),
    Pattern(
        "end_time",
        slots="event start length end",
        instruction="{event}[이/가] 오후 {start}에 시작해서 {length}분 동안 이어집니다. "
        "언제 끝납니까?",
        output="{event}[은/는] {length}분 뒤인 오후 {end}에 끝납니다.",
        rows=draw_rows("end_time", 15, end_time),
    ),
    Pattern(
        "weekday_after",
        slots="today days later",
        instruction="오늘이 {today}이라면 {days}일 뒤는 무슨 요일일까요?",
        output="{today}에서 {days}일을 더 세면 {later}이에요.",
        rows=draw_rows("weekday_after", 15, weekday_after),
    ),
    Pattern(
        "date_after",
        slots="start days end",
        instruction="달력을 보니 오늘이 {start}이네요. {days}일이 지나면 몇 월 며칠이 되나요?",
        output="{start}에서 {days}일이 지나면 {end}이 됩니다.",
        rows=draw_rows("date_after", 15, date_after),
    ),
    Pattern(
        "units",
        slots="amount large small factor converted",
        instruction="{amount}[은/는] 몇 {small}인가요?",
        output="1{large}[이/가] {factor}{small}이므로 {amount}[은/는] {converted}입니다.",
        rows=draw_rows("units", 16, unit_conversion),
    ),
    Pattern(
        "number_reading",
        slots="number reading",
        instruction="숫자 {number}[을/를] 한글로 어떻게 적습니까?",
        output="{number}[은/는] 한글로 '{reading}'[이라고/라고] 적습니다.",
        rows=draw_rows("number_reading", 15, number_reading),
    ),
    Pattern(
        "native_counting",
        slots="item amount reading",
        instruction="'{item} {amount}'[을/를] 소리 내어 읽어 주세요.",
        output="'{item} {reading}'[이라고/라고] 읽어요.",
        rows=draw_rows("native_counting", 15, native_counting),
    ),
)
